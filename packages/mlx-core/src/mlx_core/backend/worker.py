"""Evaluation on a thread of its own, for arrays whose evaluation can fail.

Weights that are mapped from files are read when they are evaluated, and reading can fail. Where an evaluation fails on
the thread that MLX calls its main thread, MLX 0.32 may count a task that doesn't exist, and wait for it later (see
`scheduler`). On any other thread nothing is miscounted. So one worker thread evaluates them, while the caller waits.

An array belongs to a stream, and a stream to the thread that made it. The worker's streams may be used by any thread:

    with worker_streams():
        weights = mx.load("model.safetensors")
        for value in weights.values():
            materialize(value)
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import mlx.core as mx

from ..errors import BackendError
from .scheduler import repaired_scheduler, synchronize

_T = TypeVar("_T")

# A signal that comes just before a wait doesn't end it: Python handles it between two waits.
_SIGNALS_S = 0.2

_ANOTHER_THREADS_STREAM = re.compile(r"There is no Stream\(.*\) in current thread")


@dataclass
class _Task:
    """A tree of arrays to evaluate, and what came of it."""

    arrays: Any
    finished: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None


class _Worker:
    """A daemon thread that evaluates, and its streams, one for each device."""

    def __init__(self) -> None:
        import queue  # not for those who load nothing

        devices = [mx.cpu, mx.gpu] if mx.is_available(mx.gpu) else [mx.cpu]
        self.streams = [mx.new_thread_unsafe_stream(device) for device in devices]
        mx.synchronize(self.streams[0])  # whoever uses MLX's scheduler first is its main thread: not the worker
        self._in_use = threading.Lock()  # the streams, which one thread at a time may evaluate on
        self._tasks: queue.SimpleQueue[_Task] = queue.SimpleQueue()
        self._open = True
        self.process = os.getpid()
        threading.Thread(target=self._run, name="mlx-core-worker", daemon=True).start()
        atexit.register(self._close)

    def evaluate(self, arrays: Any) -> None:
        """Evaluate a tree of arrays: on the worker, or here if some of it belongs to a stream of this thread's.

        Raises what MLX raises.
        """
        if self._open:
            task = _Task(arrays)
            self._tasks.put(task)
            try:
                while not task.finished.wait(_SIGNALS_S):
                    pass
            finally:
                task.arrays = None  # after KeyboardInterrupt: what hasn't begun needn't
            if (error := task.error) is None:
                return
            try:
                if not _ANOTHER_THREADS_STREAM.search(str(error)):
                    raise error
            finally:
                del error, task  # a circle through the traceback, which would keep the arrays
        with repaired_scheduler(self.streams), self._in_use:
            mx.eval(arrays)

    def _run(self) -> None:
        while True:
            task = self._tasks.get()
            with self._in_use:
                if not self._open:
                    return  # Python ends, and a thread inside MLX would abort the process
                try:
                    mx.eval(task.arrays)
                except BaseException as error:
                    synchronize(self.streams)  # takes the error off the streams
                    task.error = error
            task.finished.set()
            del task  # or else its arrays would stay in memory until the next task comes

    def _close(self) -> None:
        """Let the worker finish what it has begun: a thread inside MLX when Python ends would abort the process."""
        self._open = False
        with self._in_use:
            pass


_worker: _Worker | None = None
_starting = threading.Lock()


def _started() -> _Worker:
    global _worker
    if _worker is not None and _worker.process != os.getpid():
        raise BackendError("MLX doesn't work in a process that was forked after it was used. Start processes by spawn.")
    with _starting:
        if _worker is None:
            _worker = _Worker()
        return _worker


@contextlib.contextmanager
def worker_streams() -> Iterator[None]:
    """Within the block this thread makes its arrays on streams that the worker of `materialize` can evaluate.

    The default device stays as it is. Arrays that are still lazy when the block ends can be evaluated by any thread, but
    by one at a time.
    """
    streams = _started().streams
    before = [mx.default_stream(stream.device) for stream in streams]
    for stream in streams:
        mx.set_default_stream(stream)
    try:
        yield
    finally:
        for stream in before:
            mx.set_default_stream(stream)


def materialize(arrays: _T) -> _T:
    """Evaluate arrays that depend on files, in a worker thread; returns them.

    arrays: an array, or a tree of them in lists, tuples, dicts and modules. Arrays that were made outside
    `worker_streams` are evaluated by the calling thread, and MLX's count of tasks is put back if that fails. Exceptions
    keep their type; arrays that couldn't be evaluated hold anything afterwards, and mustn't be used. KeyboardInterrupt is
    raised at once, while the worker finishes what it has begun.
    """
    _started().evaluate(arrays)
    return arrays
