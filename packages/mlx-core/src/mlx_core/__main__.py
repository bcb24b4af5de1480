"""`python -m mlx_core`: the backend in use, its settings, and the parts that are turned off, with the reasons."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from typing import Any

from . import backend
from .terminal import add_json_option, run_command


def report() -> dict[str, Any]:
    """The backend in use and its settings, as plain values."""
    settings = backend.current()
    blas = backend.blas_status()
    scheduler = backend.scheduler_status()
    on_cpu = settings.name == "cpu"
    off = [blas.reason, None if scheduler.active else f"the scheduler isn't repaired: {scheduler.reason}"]
    return {
        "backend": settings.name,
        "device": settings.device_name,
        "machine": platform.machine(),
        "isa": backend.instruction_sets() if on_cpu else [],
        "cpus": backend.available_cpus(),
        "memory_bytes": settings.memory_bytes,
        "mlx": backend.mlx_version(),
        "compute_dtype": "checkpoint"
        if settings.compute_dtype is None
        else str(settings.compute_dtype).rpartition(".")[2],
        "packed_weights": "stay packed" if settings.keep_packed else "are dequantised",
        "dequantize_limit_bytes": settings.dequantize_limit_bytes,
        "blas": blas.name if on_cpu else None,
        "blas_threads": blas.threads,
        "one_row": blas.one_row,
        "fast_convolutions": settings.fast_convolutions,
        "fast_elementwise": settings.fast_elementwise,
        "repair_scheduler": scheduler.active,
        "off": [reason for reason in off if reason] if on_cpu else [],
        "switches": backend.switches_set(),
    }


def main() -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m mlx_core", description="Show the backend and its settings.")
    add_json_option(parser)
    parser.set_defaults(run=_show)
    return run_command(parser)


def _show(args: argparse.Namespace) -> int:
    values = report()
    if args.json:
        print(json.dumps(values))
        return 0
    gib = 2**30
    rows = [
        ("device", f"{values['backend']}: {values['device']} ({values['machine']}, {values['cpus']} processors)"),
        ("instructions", " ".join(values["isa"]) or "not known"),
        ("memory", f"{values['memory_bytes'] / gib:.1f} GiB"),
        ("mlx", values["mlx"]),
        ("dtype", values["compute_dtype"]),
        ("packed weights", values["packed_weights"]),
    ]
    if values["backend"] == "cpu":
        threads = "" if values["blas_threads"] is None else f", {values['blas_threads']} threads"
        rows[-1] = (
            "packed weights",
            f"{values['packed_weights']}, up to {values['dequantize_limit_bytes'] / gib:.1f} GiB"
            if values["packed_weights"] == "are dequantised"
            else values["packed_weights"],
        )
        rows += [
            ("blas", f"{values['blas']}{threads}"),
            ("single rows", "through gemv" if values["one_row"] else "through gemm"),
            ("convolutions", "through matrix products" if values["fast_convolutions"] else "MLX's own"),
            ("elementwise", "vectorised" if values["fast_elementwise"] else "MLX's own"),
            ("scheduler", "repaired after failed evaluations" if values["repair_scheduler"] else "MLX's own"),
            *(("turned off", reason) for reason in values["off"]),
        ]
    rows += [("switch", f"{name}={value}") for name, value in values["switches"].items()]
    for name, value in rows:
        print(f"{name:15} {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
