"""Run a command and draw its terminal as an SVG whose lines appear in the order and at the pace of the real output.

    uv run python scripts/terminal_picture.py docs/images/generate.svg

Without `--command` it is the README's first one. Statistics and progress (stderr) are drawn dimmer than results
(stdout). Pauses are shortened so that nobody waits: the picture takes `--seconds` from the first line to the last, and
stands still where animations aren't wanted or aren't supported.
"""

from __future__ import annotations

import argparse
import os
import re
import selectors
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from mlx_core.files import atomic_file

ROOT = Path(__file__).parents[1]
COLUMNS, CHARACTER_WIDTH, LINE_HEIGHT, MARGIN = 100, 7.8, 19, 16
BAR_HEIGHT = 34
TYPING_S = 1.2  # how long the command itself stands alone
COLOURS = {"command": "#e6edf3", "stdout": "#e6edf3", "stderr": "#8b949e"}


@dataclass(frozen=True)
class Row:
    """A row of the terminal: which stream wrote it, and when it was complete, in seconds from the start."""

    text: str
    stream: str
    time_s: float


def readme_command() -> str:
    """The first line of the README's first block of commands."""
    block = re.search(r"```sh\n(.+?)\n", (ROOT / "README.md").read_text(encoding="utf-8"))
    if block is None:
        raise SystemExit("README.md has no block of commands (```sh): name one by --command.")
    return block[1]


def record(command: str) -> list[Row]:
    """Run a command; its rows in order of arrival. Exits where the command fails."""
    process = subprocess.Popen(["bash", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    rows: list[Row] = []
    started = time.perf_counter()
    pending = {"stdout": b"", "stderr": b""}
    with selectors.DefaultSelector() as selector:
        for name, pipe in (("stdout", process.stdout), ("stderr", process.stderr)):
            selector.register(pipe, selectors.EVENT_READ, name)  # type: ignore[arg-type] # both are pipes
        while selector.get_map():
            for key, _ in selector.select():
                now, data = time.perf_counter() - started, os.read(key.fd, 1 << 16)
                if not data:
                    selector.unregister(key.fileobj)
                *complete, pending[key.data] = (pending[key.data] + data).split(b"\n")
                for line in complete:
                    rows += _wrap(line.decode(), key.data, now)
                start = _complete_rows(pending[key.data].decode(errors="ignore"))
                if start:  # rows of a line that goes on
                    rows += _wrap(pending[key.data].decode(errors="ignore")[:start], key.data, now)
                    pending[key.data] = pending[key.data].decode(errors="ignore")[start:].encode()
    for name, rest in pending.items():
        if rest:
            rows += _wrap(rest.decode(), name, time.perf_counter() - started)
    if process.wait():
        sys.exit(f"`{command}` ended with status {process.returncode}:\n" + "\n".join(row.text for row in rows))
    return rows


def _complete_rows(text: str) -> int:
    """The length of the rows that are full, up to the blank after the last one."""
    if len(text) <= COLUMNS:
        return 0
    rows = textwrap.wrap(text, COLUMNS)
    return len(text) - len(rows[-1]) if len(rows) > 1 else 0


def _wrap(line: str, stream: str, now: float) -> Iterator[Row]:
    for text in textwrap.wrap(line, COLUMNS) or [""]:
        yield Row(text, stream, now)


def draw(command: str, rows: list[Row], seconds: float) -> str:
    """The picture."""
    first, last = rows[0].time_s, max(row.time_s for row in rows)
    pace = seconds / (last - first) if last > first else 0.0
    lines = [Row(text, "command", 0.0) for text in textwrap.wrap(f"$ {command}", COLUMNS, subsequent_indent="    ")]
    delays = [0.0] * len(lines) + [TYPING_S + pace * (row.time_s - first) for row in rows]
    width = COLUMNS * CHARACTER_WIDTH + 2 * MARGIN
    height = BAR_HEIGHT + (len(lines) + len(rows)) * LINE_HEIGHT + 2 * MARGIN
    texts = []
    for number, (row, delay) in enumerate(zip(lines + rows, delays, strict=True)):
        if not row.text:
            continue
        y = BAR_HEIGHT + MARGIN + number * LINE_HEIGHT + 13
        length = f'textLength="{len(row.text) * CHARACTER_WIDTH:.1f}" lengthAdjust="spacingAndGlyphs"'
        style = f' style="animation-delay:{delay:.2f}s"' if delay else ""
        kind = row.stream + (" later" if delay else "")
        texts.append(f'<text class="{kind}" x="{MARGIN}" y="{y}" {length}{style}>{escape(row.text)}</text>')
    colours = "\n".join(f".{name} {{ fill: {colour} }}" for name, colour in COLOURS.items())
    dots = "".join(
        f'<circle cx="{MARGIN + 6 + 20 * i}" cy="17" r="6" fill="{colour}"/>'
        for i, colour in enumerate(("#ff5f57", "#febc2e", "#28c840"))
    )
    title = escape(f"Terminal: {command}")
    size = f'viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" height="{height}"'
    return f"""<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">
<title>{title}</title>
<style>
text {{ font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace; white-space: pre }}
{colours}
@keyframes appear {{ from {{ opacity: 0 }} to {{ opacity: 1 }} }}
.later {{ animation: appear 0.2s both }}
@media (prefers-reduced-motion: reduce) {{ .later {{ animation: none }} }}
</style>
<rect width="100%" height="100%" rx="10" fill="#0d1117"/>
{dots}
{chr(10).join(texts)}
</svg>
"""


def main() -> None:
    """Record and draw."""
    parser = argparse.ArgumentParser(description="Run a command and draw its terminal as an SVG.")
    parser.add_argument("picture", type=Path, help="the file to write")
    parser.add_argument("--command", help="the command (default: the README's first)")
    parser.add_argument("--seconds", type=float, default=8.0, help="from the first line to the last (default: 8)")
    args = parser.parse_args()
    command = args.command or readme_command()
    picture = draw(command, record(command), args.seconds)
    with atomic_file(args.picture) as temporary:
        temporary.write_text(picture, encoding="utf-8")
    print(args.picture)


if __name__ == "__main__":
    main()
