"""`python -m mlx_core`: the parts that are active here, and those that were turned off and why."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from typing import Any

from . import backend


def report() -> dict[str, Any]:
    """The backend in force, in plain values."""
    wants = backend.current()
    blas = backend.blas_status()
    scheduler = backend.scheduler_status()
    on_cpu = wants.name == "cpu"
    off = [blas.reason, None if scheduler.active else f"the scheduler isn't repaired: {scheduler.reason}"]
    return {
        "backend": wants.name,
        "device": wants.device_name,
        "machine": platform.machine(),
        "isa": backend.instruction_sets() if on_cpu else [],
        "cpus": backend.available_cpus(),
        "memory_bytes": wants.memory_bytes,
        "mlx": backend.mlx_version(),
        "compute_dtype": "checkpoint" if wants.compute_dtype is None else str(wants.compute_dtype).rpartition(".")[2],
        "packed_weights": "stay packed" if wants.keep_packed else "are dequantised",
        "dequantize_limit_bytes": wants.dequantize_limit_bytes,
        "blas": blas.name if on_cpu else None,
        "blas_threads": blas.threads,
        "one_row": blas.one_row,
        "fast_convolutions": wants.fast_convolutions,
        "fast_elementwise": wants.fast_elementwise,
        "repair_scheduler": scheduler.active,
        "off": [reason for reason in off if reason] if on_cpu else [],
        "switches": backend.switches_set(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m mlx_core", description="Show what is active on this machine.")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    args = parser.parse_args()
    found = report()
    if args.json:
        print(json.dumps(found))
        return 0
    gib = 2**30
    rows = [
        ("device", f"{found['backend']}: {found['device']} ({found['machine']}, {found['cpus']} processors)"),
        ("instructions", " ".join(found["isa"]) or "not known"),
        ("memory", f"{found['memory_bytes'] / gib:.1f} GiB"),
        ("mlx", found["mlx"]),
        ("dtype", found["compute_dtype"]),
        ("packed weights", found["packed_weights"]),
    ]
    if found["backend"] == "cpu":
        threads = "" if found["blas_threads"] is None else f", {found['blas_threads']} threads"
        rows[-1] = (
            "packed weights",
            f"{found['packed_weights']}, up to {found['dequantize_limit_bytes'] / gib:.1f} GiB"
            if found["packed_weights"] == "are dequantised"
            else found["packed_weights"],
        )
        rows += [
            ("blas", f"{found['blas']}{threads}"),
            ("single rows", "through gemv" if found["one_row"] else "through gemm"),
            ("convolutions", "through matrix products" if found["fast_convolutions"] else "MLX's own"),
            ("elementwise", "vectorised" if found["fast_elementwise"] else "MLX's own"),
            ("scheduler", "repaired after failed evaluations" if found["repair_scheduler"] else "MLX's own"),
            *(("turned off", reason) for reason in found["off"]),
        ]
    rows += [("switch", f"{name}={value}") for name, value in found["switches"].items()]
    for name, value in rows:
        print(f"{name:15} {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
