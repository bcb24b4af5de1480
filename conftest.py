"""Set-up for all tests."""

import os
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

# Before MLX is imported: NVIDIA GPUs otherwise multiply fp32 in TF32, whose 10 bits of mantissa would make every comparison
# meaningless.
os.environ.setdefault("MLX_ENABLE_TF32", "0")

# No test depends on time: a busy machine must not fail one.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

from mlx_core import backend  # noqa: E402  # after the environment is set


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None, object, object]:
    """Fail the test after which MLX counts tasks as active that don't exist: two of them, and it may hang later."""
    try:
        return (yield)
    finally:
        left = backend.leftover_tasks()
        if left:
            with backend.override(repair_scheduler=True):  # for the tests that follow
                backend.repair_scheduler()
            pytest.fail(
                f"{left} tasks are left over in MLX's scheduler: an evaluation failed on the main thread. Evaluate what can "
                "fail by mlx_core.backend.materialize, or within repaired_scheduler.",
                pytrace=False,
            )
