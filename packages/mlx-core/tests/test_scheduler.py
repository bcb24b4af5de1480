"""Evaluations that fail, which leave nothing over on a worker thread, and on the main thread a count that is put back."""

import contextlib
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_core import backend
from mlx_core.backend import scheduler, worker
from mlx_core.checkpoints import load_safetensors
from mlx_core.generation import generate
from mlx_core.testing import byte_tokenizer, tiny_model

counted = pytest.mark.skipif(
    backend.leftover_tasks() is None, reason="only the scheduler of MLX's wheels for Linux CPUs is known"
)


def run(program, **environment):
    """The output of a program in a process of its own, which must end well and say nothing on stderr."""
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **environment},
    )
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.split()


def failing():
    """An array whose evaluation fails in its stream's thread, while many more operations are being queued."""
    x = mx.linalg.inv(mx.zeros((3, 3)), stream=mx.cpu)
    for _ in range(100):
        x = mx.add(x, 1, stream=mx.cpu)
    return x


@counted
@pytest.mark.parametrize(("switch", "expected"), [("1", ["2", "2", "0", "2.0"]), ("0", ["2", "0", "2", "2.0"])])
def test_failed_evaluations_on_the_main_thread_leave_tasks_which_are_put_back(switch, expected):
    """The cause of the hang, in a process of its own; three tasks that don't exist are already too many."""
    program = """
        import mlx.core as mx
        from mlx_core import backend
        while backend.leftover_tasks() < 2:
            x = mx.linalg.inv(mx.zeros((3, 3)))
            for _ in range(100):
                x = x + 1
            try:
                mx.eval(x)
            except RuntimeError:
                pass
        print(backend.leftover_tasks(), backend.repair_scheduler(), backend.leftover_tasks(), (mx.ones(()) + 1).item())
    """
    assert run(program, MLX_CORE_REPAIR_SCHEDULER=switch) == expected


def test_failed_evaluations_on_the_worker_leave_nothing():
    for _ in range(300):
        with backend.worker_streams():
            x = failing()
        with pytest.raises(RuntimeError, match="LU factorization"):
            backend.materialize(x)
        assert not backend.leftover_tasks()
    with backend.worker_streams():
        x = mx.arange(4) * 2
    assert backend.materialize(x).tolist() == [0, 2, 4, 6]  # no error is left with the streams either


def test_arrays_go_when_their_evaluation_has_failed_or_ended():
    """Weights are evaluated one by one because two may not fit."""
    mx.clear_cache()
    gc.disable()
    try:
        before = mx.get_active_memory()
        for array in (mx.ones, lambda shape: failing()[0, 0] + mx.ones(shape)):
            with backend.worker_streams():
                x = array((1024, 1024))
            with contextlib.suppress(RuntimeError):
                backend.materialize(x)
            del x
            with backend.worker_streams():
                small = mx.ones(())
            backend.materialize(small)  # GPUs let go of an array when their next one is evaluated
            assert mx.get_active_memory() - before < 2**20
    finally:
        gc.enable()


@counted
def test_failed_evaluations_elsewhere_are_repaired():
    """Arrays that belong to this thread's stream can't go to the worker."""
    for _ in range(100):
        with pytest.raises(RuntimeError, match="LU factorization"):
            backend.materialize(failing())
        assert backend.leftover_tasks() == 0


def test_the_next_evaluation_does_not_raise_what_was_still_queued():
    for _ in range(30):
        with pytest.raises(RuntimeError, match="LU factorization"), backend.repaired_scheduler():
            mx.eval([failing() for _ in range(8)])
        assert (mx.ones(()) + 1).item() == 2


def test_files_that_end_early_after_they_were_mapped(tmp_path):
    """Sizes are checked when a file is opened; one that is cut short later fails on the worker."""
    value = np.ones((64, 64), np.float32)
    for _ in range(30):
        mx.save_safetensors(str(tmp_path / "model.safetensors"), {str(i): mx.array(value) for i in range(20)})
        with backend.worker_streams():
            weights = {name: value.astype(mx.float16).T for name, value in load_safetensors(tmp_path).items()}
        os.truncate(tmp_path / "model.safetensors", 20_000)
        with pytest.raises(RuntimeError, match="read"):
            backend.materialize(weights)
        assert not backend.leftover_tasks()


@counted
def test_generation_with_weights_that_cannot_be_read(tmp_path):
    """A lazy model reads its weights in the middle of a generation, on the caller's thread."""
    model, tokenizer = tiny_model(vocab_size=259), byte_tokenizer()
    weights = dict(tree_flatten(model.parameters()))
    for _ in range(60):
        mx.save_safetensors(str(tmp_path / "model.safetensors"), weights)
        model.load_weights(list(load_safetensors(tmp_path).items()))
        os.truncate(tmp_path / "model.safetensors", 20_000)
        with pytest.raises(RuntimeError, match="read"):
            generate(model, tokenizer, "hello", max_tokens=3)
        assert backend.leftover_tasks() == 0


def test_arrays_are_evaluated_by_the_worker_and_others_here(monkeypatch):
    evaluated = []

    def evaluate(arrays):
        original(arrays)
        evaluated.append(threading.current_thread().name)

    original = mx.eval
    monkeypatch.setattr(worker.mx, "eval", evaluate)
    mine = mx.ones((3,)) + 1
    with backend.worker_streams():
        theirs, mixed = mx.ones((3,)) + 1, mine * 2
    backend.materialize({"a": [theirs]})
    backend.materialize(mixed)
    assert evaluated == ["mlx-core-worker", threading.current_thread().name]
    assert (theirs + mixed).tolist() == [6, 6, 6]


def test_nothing_else_of_the_thread_changes():
    stream, device, state = mx.default_stream(mx.default_device()), mx.default_device(), mx.random.state[0].tolist()
    with backend.worker_streams():
        assert mx.default_stream(device) != stream
        assert mx.default_device() == device
        backend.materialize(mx.ones((2,)) + 1)
    with pytest.raises(ZeroDivisionError), backend.worker_streams():
        raise ZeroDivisionError
    assert (mx.default_stream(device), mx.default_device()) == (stream, device)
    assert mx.random.state[0].tolist() == state


def test_threads_may_evaluate_at_the_same_time():
    def work(number):
        for size in range(1, 60):
            with backend.worker_streams():
                x = mx.arange(size) * number
            results[number].append(backend.materialize(x).tolist() == [i * number for i in range(size)])

    results = {number: [] for number in range(6)}
    threads = [threading.Thread(target=work, args=(number,)) for number in results]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(len(found) == 59 and all(found) for found in results.values())


def test_keyboard_interrupt_does_not_wait_for_the_worker(monkeypatch):
    release = threading.Event()
    main = threading.get_ident()

    def evaluate(arrays):
        signal.pthread_kill(main, signal.SIGINT)
        release.wait()

    monkeypatch.setattr(worker.mx, "eval", evaluate)
    with pytest.raises(KeyboardInterrupt):
        backend.materialize(mx.ones(()))
    release.set()  # only now: who waited for the worker would wait for ever


def test_python_may_end_while_the_worker_is_busy():
    program = """
        import os, signal, threading
        import mlx.core as mx
        from mlx_core import backend
        with backend.worker_streams():
            x = mx.sort(mx.sin(mx.arange(2**22, dtype=mx.float32)))
        begun, evaluate = threading.Event(), mx.eval
        def interrupting(arrays):
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            evaluate(arrays)
        mx.eval = interrupting
        try:
            backend.materialize(x)
        except KeyboardInterrupt:
            print("interrupted")
    """
    assert run(program) == ["interrupted"]


@counted
def test_the_count_is_written_only_where_it_was_examined(monkeypatch):
    assert backend.scheduler_status() == backend.SchedulerStatus(True)
    with backend.override(repair_scheduler=False):
        assert backend.scheduler_status().reason == "switched off"
    monkeypatch.setattr(scheduler, "_VERIFIED", {("0.0.1", "x86_64")})
    scheduler._found.cache_clear()
    try:
        assert "wasn't examined" in (backend.scheduler_status().reason or "")
        assert backend.leftover_tasks() is None
        assert backend.repair_scheduler() == 0
    finally:
        scheduler._found.cache_clear()


@counted
def test_a_count_that_another_thread_changes_stays_as_it_is(monkeypatch):
    """While others evaluate nobody knows how many of the tasks exist."""
    values = iter(range(1, 10**9))
    monkeypatch.setattr(scheduler, "_PATIENCE_S", 0.05)
    monkeypatch.setattr(scheduler.TaskCount, "value", property(lambda self: next(values)))
    assert scheduler.TaskCount().settled() is None
    monkeypatch.undo()
    assert backend.leftover_tasks() == 0


@counted
def test_the_self_test_sees_the_count_at_work(monkeypatch):
    assert scheduler.TaskCount().self_test()
    monkeypatch.setattr(scheduler.TaskCount, "value", property(lambda self: 0))  # somewhere else in memory
    assert not scheduler.TaskCount().self_test()


@counted
def test_the_count_is_that_of_the_tasks_in_the_queue():
    """Behind an operation that takes its time stand thirty others, of which every tenth entry is counted."""
    counts = []
    for size in (2**16, 2**18, 2**20, 2**22):  # on a busy machine it must take more of it
        x = mx.sort(mx.sin(mx.arange(size, dtype=mx.float32)))[:1]
        for _ in range(10):
            x = x + 1
        mx.async_eval(x)
        counts.append(scheduler.TaskCount().value)
        mx.synchronize()
        if counts[-1] >= 2:
            break
    assert counts[-1] >= 2
    assert backend.leftover_tasks() == 0
