"""Give the readers files that no one should have written, and see that each is read or refused, and nothing else.

    uv run python scripts/fuzz.py --rounds 10000                     # of each kind
    uv run python scripts/fuzz.py --kind gguf --kind pickle --seed 7
    uv run python scripts/fuzz.py --replay build/fuzz/gguf-7-123

An input may be read, and what was read is then used, or be refused by an MLXCoreError. Anything else is a finding:
another exception or a warning, a crash, more time than `--timeout` or memory than `--memory-mib`, and whatever a read
has no business with: code, processes, sockets, files to write, files outside of the input's folder
(`sys.addaudithook`). Findings are kept for `--replay`; the exit status is 1 if there are any. Inputs are functions of
kind, seed and number.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import importlib
import json
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from random import Random
from types import FrameType, FunctionType, TracebackType
from typing import Any

from fuzzing.examples import Files
from fuzzing.programs import CANARY
from fuzzing.targets import TARGETS, available

from mlx_core.errors import MLXCoreError

Task = tuple[str, int, str | None]
"""Kind and number of an input, and where it is if it was kept."""

_ADDRESS_SPACE = 6 * 2**30  # beyond what a reader has mapped at its start: what keeps the machine safe, not the cap
_TOO_LONG = "took too long"
_START_S = 300  # importing, making the examples and reading them


@dataclass(frozen=True)
class Outcome:
    """An outcome: "read", the name of the MLXCoreError that refused it, or a finding and its details."""

    result: str
    finding: bool = False
    detail: str = ""
    seconds: float = 0.0
    peak_mib: float = 0.0


@dataclass
class Tally:
    """The outcomes of one kind."""

    inputs: int = 0
    results: Counter[str] = field(default_factory=Counter)
    findings: int = 0
    slowest_s: float = 0.0
    peak_mib: float = 0.0

    def __str__(self) -> str:
        results = ", ".join(f"{count} {result}" for result, count in self.results.most_common())
        return f"{self.inputs} inputs, slowest {self.slowest_s:.2f} s, peak {self.peak_mib:.0f} MiB: {results}"

    def add(self, outcome: Outcome) -> None:
        self.inputs += 1
        self.results[outcome.result] += 1
        self.findings += outcome.finding
        self.slowest_s = max(self.slowest_s, outcome.seconds)
        self.peak_mib = max(self.peak_mib, outcome.peak_mib)


# --- The child, which reads


class _Watch:
    """Records a read's actions on the system by Python's audit events; active only while an input is read."""

    # Jinja compiles templates to Python, under this name, and leaves its own code out of their tracebacks.
    _TEMPLATES = ("<template>", "<unknown>")
    _TRACEBACKS = ("tb_frame", "tb_next", "f_code", "__code__")
    _HARMLESS = frozenset(
        {"os.listdir", "os.scandir", "glob.glob", "glob.glob/2", "pathlib.Path.glob", "mmap.__new__", "builtins.id"}
    )

    def __init__(self) -> None:
        self.folder = ""
        self.paths = tuple(map(os.path.realpath, sys.path))  # where the packages of models are looked for
        self.seen: list[str] = []
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder and event not in self._HARMLESS and not self._expected(event, arguments):
            self.seen.append(f"{event}{arguments!r:.300}")

    def _expected(self, event: str, arguments: tuple[Any, ...]) -> bool:
        if event == "open":
            path, _, flags = arguments
            real = os.path.realpath(os.fsdecode(path)) if isinstance(path, str | bytes) else ""
            installed = real in self.paths or (real.startswith(self.paths) and real.endswith("entry_points.txt"))
            reads = not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            return reads and (installed or real.startswith(self.folder))
        if event == "compile":
            return arguments[1] in self._TEMPLATES
        if event == "exec":
            return getattr(arguments[0], "co_filename", None) in self._TEMPLATES
        if event == "code.__new__":
            return arguments[1] in self._TEMPLATES
        if event == "object.__getattr__":
            kinds = TracebackType | FrameType | FunctionType
            return isinstance(arguments[0], kinds) and arguments[1] in self._TRACEBACKS
        return False

    @contextlib.contextmanager
    def over(self, folder: Path) -> Any:
        self.seen, self.folder = [], os.path.realpath(folder)
        try:
            yield
        finally:
            self.folder = ""


class _Memory:
    """Peak resident memory, in MiB: since `reset` on Linux, of the process's life elsewhere."""

    _STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")

    def reset(self) -> None:
        with contextlib.suppress(OSError):
            self._RESET.write_text("5")

    def peak_mib(self) -> float:
        if self._STATUS.exists():
            return self.status("VmHWM") / 1024
        unit = 2**20 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit

    def status(self, key: str) -> int:
        """An entry of /proc/self/status, in kB."""
        lines = self._STATUS.read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


class _Reader:
    """The examples of each kind, made when first needed, and one input after the other."""

    def __init__(self, seed: int, root: Path, options: argparse.Namespace) -> None:
        self.seed, self.options = seed, options
        self.folder, self.log = root / "input", (root / "log").open("w")
        self.seeds: dict[str, list[Files]] = {}
        self.watch, self.memory = _Watch(), _Memory()

    def prepare(self, kind: str) -> None:
        target = TARGETS[kind]
        self.seeds[kind] = target.seeds()
        for files in self.seeds[kind] if target.sound else []:
            write(files, self.folder)
            for i in range(4):
                target.use(self.folder, Random(i))

    def files(self, kind: str, index: int) -> Files:
        rng = Random(f"{kind}/{self.seed}/{index}")
        seeds = self.seeds[kind]
        return TARGETS[kind].mutate(seeds[index % len(seeds)], rng)

    def read(self, kind: str, index: int, files: Files) -> Outcome:
        write(files, self.folder)
        rng = Random(f"use/{kind}/{self.seed}/{index}")
        faulthandler.dump_traceback_later(max(self.options.timeout - 0.5, 0.1), file=self.log)
        self.memory.reset()
        raised: BaseException | None = None
        start = time.perf_counter()
        with self.watch.over(self.folder):
            try:
                TARGETS[kind].use(self.folder, rng)
            except BaseException as error:
                raised = error
        seconds, peak = time.perf_counter() - start, self.memory.peak_mib()
        faulthandler.cancel_dump_traceback_later()
        result, detail = "read", ""
        if isinstance(raised, MLXCoreError):
            result, detail = type(raised).__name__, _exhausted(raised)
        elif raised is not None:
            result, detail = f"raised {type(raised).__name__}", "".join(traceback.format_exception(raised))
        if self.watch.seen or Path(CANARY).exists():
            result, detail = "did what no read does", "\n".join([*self.watch.seen, detail])
        elif peak > self.options.memory_mib:
            result, detail = "took too much memory", f"{peak:.0f} MiB\n{detail}"
        return Outcome(result, bool(detail), detail, seconds, peak)


def _exhausted(error: BaseException | None) -> str:
    """The traceback of a refusal that is only the machine's: memory that couldn't be had."""
    cause = error
    while cause is not None:
        if isinstance(cause, MemoryError) or "llocat" in str(cause):
            return "".join(traceback.format_exception(error))
        cause = cause.__cause__ or cause.__context__
    return ""


def write(files: Files, folder: Path) -> None:
    """A fresh folder of these files: what an earlier input left may be mapped still."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def read_inputs(connection: Connection, seed: int, root: str, options: argparse.Namespace) -> None:
    """The child: reads the inputs that the parent names, (kind, index, folder of a finding or None), until None."""
    os.chdir(root)  # relative paths in hostile inputs lead here
    log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    warnings.simplefilter("error")
    faulthandler.enable()
    reader = _Reader(seed, Path(root), options)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        limit = reader.memory.status("VmSize") * 1024 + _ADDRESS_SPACE
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    while (task := connection.recv()) is not None:
        kind, index, saved = task
        if kind not in reader.seeds:
            importlib.import_module("jinja2.debug")  # which Jinja does when a template fails
            reader.prepare(kind)
            connection.send(None)
        files = reader.files(kind, index) if saved is None else {p.name: p.read_bytes() for p in Path(saved).iterdir()}
        connection.send(reader.read(kind, index, files))


# --- The parent, which survives


class _Child:
    """A reading process and the input that it is at."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.root = Path(tempfile.mkdtemp(prefix="fuzz-"))
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=read_inputs, args=(theirs, options.seed, str(self.root), options), daemon=True
        )
        self.process.start()
        theirs.close()
        self.prepared: set[str] = set()
        self.task: Task | None = None
        self.deadline = 0.0

    def give(self, task: Task) -> None:
        self.task = task
        self.deadline = time.monotonic() + (self.options.timeout if task[0] in self.prepared else _START_S)
        self.connection.send(task)

    def outcome(self) -> Outcome | None:
        """The outcome of the input, or None while it is read."""
        assert self.task is not None
        kind = self.task[0]
        try:
            if self.connection.poll():
                answer: Outcome | None = self.connection.recv()
                if answer is None:
                    self.prepared.add(kind)
                    self.deadline = time.monotonic() + self.options.timeout
                return answer
            if time.monotonic() < self.deadline:
                return None
            result = _TOO_LONG
        except (EOFError, ConnectionResetError):
            self.process.join(5)
            result = f"crashed ({self.process.exitcode})"
        self.process.kill()
        self.process.join()
        log = (self.root / "log").read_text(errors="replace")[-8000:]
        if kind not in self.prepared:
            raise SystemExit(f"the sound examples of {kind} can't be read: {result}\n{log}")
        return Outcome(result, True, log, self.options.timeout if result == _TOO_LONG else 0.0)

    def close(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()
        shutil.rmtree(self.root, ignore_errors=True)


def fuzz(tasks: list[Task], options: argparse.Namespace) -> dict[str, Tally]:
    """The outcomes of the tasks by kind. Findings are saved, and told as they come."""
    tallies: dict[str, Tally] = {kind: Tally() for kind, _, _ in tasks}
    totals = Counter(kind for kind, _, _ in tasks)
    waiting, again = list(reversed(tasks)), set[Task]()
    children = [_Child(options) for _ in range(min(options.jobs, len(tasks)))]
    try:
        while True:
            for child in children:
                if child.task is None and waiting:
                    child.give(waiting.pop())
            busy = [child for child in children if child.task is not None]
            if not busy:
                return tallies
            wait([child.connection for child in busy], timeout=0.2)
            for child in busy:
                if (outcome := child.outcome()) is None or child.task is None:
                    continue
                if outcome.result == _TOO_LONG and child.task not in again:  # the machine may have stood still
                    again.add(child.task)
                    waiting.append(child.task)
                else:
                    tally = tallies[child.task[0]]
                    tally.add(outcome)
                    if outcome.finding:
                        _keep(child, outcome, options)
                    if tally.inputs == totals[child.task[0]] and not options.json:
                        print(f"{child.task[0]}: {tally}", flush=True)
                child.task = None
                if not child.process.is_alive():
                    child.close()
                    children[children.index(child)] = _Child(options)
    finally:
        for child in children:
            child.close()


def _keep(child: _Child, outcome: Outcome, options: argparse.Namespace) -> None:
    assert child.task is not None
    kind, index, saved = child.task
    summary = next((line for line in reversed(outcome.detail.splitlines()) if line.strip()), "")
    print(f"{kind}-{options.seed}-{index}: {outcome.result}: {summary:.200}", file=sys.stderr)
    if saved is not None:
        print(outcome.detail, file=sys.stderr)
        return
    place = Path(options.findings) / f"{kind}-{options.seed}-{index}"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(child.root / "input", place / "input")
    report = {"kind": kind, "seed": options.seed, "index": index, **asdict(outcome)}
    (place / "report.json").write_text(json.dumps(report, indent=2) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1000, help="inputs of each kind (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of all inputs (%(default)s)")
    parser.add_argument("--kind", action="append", choices=list(TARGETS), help="repeat for several; all by default")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (%(default)s)")
    parser.add_argument("--timeout", type=float, default=20.0, help="seconds for one input (%(default)s)")
    parser.add_argument("--memory-mib", type=float, default=2048.0, help="peak of the process (%(default)s)")
    parser.add_argument("--findings", default="build/fuzz", help="folder to keep findings in (%(default)s)")
    parser.add_argument("--replay", metavar="FINDING", help="read a kept finding again")
    parser.add_argument("--json", action="store_true", help="the figures as JSON")
    return parser


def main() -> int:
    options = _parser().parse_args()
    if options.replay:
        report = json.loads((Path(options.replay) / "report.json").read_text())
        options.seed = report["seed"]
        tasks: list[Task] = [(report["kind"], report["index"], str(Path(options.replay).resolve() / "input"))]
    else:
        tasks = [(kind, index, None) for kind in options.kind or available() for index in range(options.rounds)]
    start = time.monotonic()
    tallies = fuzz(tasks, options)
    if options.json:
        print(json.dumps({kind: vars(tally) for kind, tally in tallies.items()}, indent=2))
    else:
        total = sum(tally.inputs for tally in tallies.values())
        print(
            f"{total} inputs in {time.monotonic() - start:.0f} s, {sum(t.findings for t in tallies.values())} findings"
        )
    return 1 if any(tally.findings for tally in tallies.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
