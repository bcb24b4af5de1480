"""MLX's count of active tasks, put back where failed evaluations left it too high.

On a CPU stream every tenth operation is counted as a task when it is queued, and its completion is queued behind it. An
operation that fails leaves its error with its stream. On the main thread (the first to use MLX's scheduler) the next
operation that is queued on the stream raises the error; if that one was just counted, its completion is never queued,
so the count stays one too high. With more than ten tasks counted MLX waits until there is one less. Once two or more of
them don't exist, that wait may never end. MLX 0.32.4 has this defect; other versions weren't examined.

The count is the first member of the scheduler that `mlx::core::scheduler::scheduler()` returns. Its place, and those of
the lock and the condition that belong to it, were read from the disassembled libmlx of the versions in `_VERIFIED`; on
any other nothing is touched. A self-test sees the count rise and fall before it is written for the first time.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.metadata
import os
import platform
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from .device import current

# (version, machine) of MLX's Linux wheels for CPUs whose Scheduler is laid out as below.
_VERIFIED = {("0.32.4", "x86_64"), ("0.32.4", "aarch64")}
_CONDITION_BYTES, _LOCK_BYTES = 0x78, 0xA8  # pthread_cond_t and pthread_mutex_t; the count is at 0

# Half of the tasks at which MLX begins to wait: a self-test with more left over might itself wait for ever.
_MAX_TESTED = 5
_UNCHANGED_S, _PATIENCE_S, _POLL_S = 0.2, 3.0, 0.002
_IDLE_S = 0.005  # of processor time that idle threads, which wake now and then, may take in _UNCHANGED_S


@dataclass(frozen=True)
class SchedulerStatus:
    """Whether MLX's count of active tasks can be put back here, and why not."""

    active: bool
    reason: str | None = None


class _Unavailable(Exception):
    """The count can't be used, for the reason given. Internal: users see `SchedulerStatus.reason`."""


class TaskCount:
    """The count of active tasks of MLX's scheduler. Raises _Unavailable where its place isn't known."""

    def __init__(self) -> None:
        _check_platform()
        try:
            library = ctypes.CDLL(str(Path(mx.__file__).parent / "lib" / "libmlx.so"), mode=os.RTLD_NOLOAD)
            scheduler = library._ZN3mlx4core9scheduler9schedulerEv
        except (OSError, AttributeError) as error:
            raise _Unavailable(f"libmlx's scheduler can't be found: {error}") from error
        scheduler.restype = ctypes.c_void_p
        address = scheduler()
        self._count = ctypes.c_int.from_address(address)
        self._lock, self._condition = (ctypes.c_void_p(address + at) for at in (_LOCK_BYTES, _CONDITION_BYTES))
        self._pthread = ctypes.PyDLL(None)  # keeps the interpreter's lock: these calls don't block

    @property
    def value(self) -> int:
        return self._count.value

    def settled(self) -> int | None:
        """The count once nothing is active: when it hasn't changed for a while in which no other thread of the process has
        computed anything either. None if that doesn't come, because other threads evaluate.
        """
        deadline = time.monotonic() + _PATIENCE_S
        value, since, computed = self.value, time.monotonic(), _others_s()
        while value:
            time.sleep(_POLL_S)
            now = time.monotonic()
            if self.value != value or _others_s() - computed > _IDLE_S:
                value, since, computed = self.value, now, _others_s()
            elif now - since > _UNCHANGED_S:
                break
            if now > deadline:
                return None
        return value

    def put_back(self, surplus: int) -> bool:
        """Take `surplus` off the count and wake whoever waits for it; False if another thread holds it just now."""
        if self._pthread.pthread_mutex_trylock(self._lock):
            return False
        self._count.value -= surplus
        self._pthread.pthread_mutex_unlock(self._lock)
        self._pthread.pthread_cond_broadcast(self._condition)
        return True

    def self_test(self) -> bool:
        """Whether the count rises when operations are queued behind a slow one, and falls when they are done."""
        if not 0 <= self.value <= _MAX_TESTED:
            return False
        stream = mx.new_stream(mx.cpu)
        for size in (2**16, 2**18, 2**20, 2**22):  # on a busy machine the slow operation must be slower
            before = self.value
            x = mx.sort(mx.sin(mx.arange(size, dtype=mx.float32, stream=stream), stream=stream), stream=stream)[:1]
            for _ in range(6):  # twelve entries of the queue
                x = mx.add(x, 1, stream=stream)
            mx.async_eval(x)
            during = self.value
            mx.synchronize(stream)
            if 1 <= during - before <= 3 and self.settled() == before:
                return self.put_back(0)
        return False


def _others_s() -> float:
    """The processor time, in seconds, of all threads but this one."""
    return time.process_time() - time.thread_time()


def _check_platform() -> None:
    try:
        version, machine = importlib.metadata.version("mlx-cpu"), platform.machine()
    except importlib.metadata.PackageNotFoundError:
        raise _Unavailable("only MLX's wheels for Linux CPUs were examined") from None
    if (version, machine) not in _VERIFIED or sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        raise _Unavailable(f"the scheduler of mlx-cpu {version} on {machine} wasn't examined")


_using = threading.Lock()


@functools.cache
def _found() -> TaskCount | str:
    """The count, or why it can't be used."""
    try:
        return TaskCount()
    except _Unavailable as error:
        return str(error)


@functools.cache
def _passed(count: TaskCount) -> bool:
    return count.self_test()


def scheduler_status() -> SchedulerStatus:
    """Whether MLX's count of tasks can be put back here. Runs the self-test, once."""
    count = _found()
    if isinstance(count, str):
        return SchedulerStatus(False, count)
    if not current().repair_scheduler:
        return SchedulerStatus(False, "switched off")
    with _using:
        passed = _passed(count)
    return SchedulerStatus(passed, None if passed else "the self-test failed")


def leftover_tasks() -> int | None:
    """The number of tasks that MLX counts as active though nothing is; None where that can't be said."""
    count = _found()
    if isinstance(count, str):
        return None
    return count.settled() if count.value else 0


def synchronize(streams: Iterable[mx.Stream]) -> None:
    """Wait for the streams, and take the errors of failed evaluations off them."""
    for stream in streams:
        with contextlib.suppress(RuntimeError):
            mx.synchronize(stream)


def repair_scheduler(streams: Iterable[mx.Stream] = ()) -> int:
    """Clean up after an evaluation that has failed: wait for the thread's streams, take the errors of what was queued off
    them, which the next evaluation would raise, and put the count of active tasks back; returns by how much it was too
    high.

    streams: those that the evaluation used besides the thread's default ones. The count stays as it is where nothing is
    known of this MLX, and while other threads evaluate: the next call may find it at rest.
    """
    synchronize([mx.default_stream(mx.cpu), mx.default_stream(mx.default_device()), *streams])
    count = _found()
    if isinstance(count, str) or not count.value or not scheduler_status().active:
        return 0
    with _using:
        surplus = count.settled()
        return surplus if surplus and count.put_back(surplus) else 0


@contextlib.contextmanager
def repaired_scheduler(streams: Iterable[mx.Stream] = ()) -> Iterator[None]:
    """Evaluations within the block may fail: `repair_scheduler` follows a RuntimeError, which goes on."""
    try:
        yield
    except RuntimeError:  # all that MLX raises for what failed in a stream's thread
        repair_scheduler(streams)
        raise
