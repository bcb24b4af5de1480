"""Random weights that any machine can make again, so that a golden holds inputs and outputs but no weights.

Each tensor is drawn from a NumPy generator seeded with (seed, crc32(name)), scaled by the rules below so that
activations stay of order one, no bias is zero and no norm weight is one. NumPy promises the same stream for
`default_rng` of one version of PCG64.

    weights = seeded_weights(config["weights"], seed=config["weights_seed"], gain=config["weights_gain"])
"""

import zlib

import numpy as np


def seeded_weights(shapes: dict[str, list[int]], seed: int, gain: float = 1.0) -> dict[str, np.ndarray]:
    """Draw float32 arrays for `shapes` (name -> shape in the reference's own layout), in any order, with the same
    result.
    """
    return {name: _draw(name, shapes, seed, gain) for name in shapes}


def _draw(name: str, shapes: dict[str, list[int]], seed: int, gain: float) -> np.ndarray:
    shape = tuple(shapes[name])
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    last = name.rsplit(".", 1)[-1]
    if last in ("inited", "cluster_size", "embed_avg", "num_batches_tracked"):
        return np.ones(shape, np.float32)
    if last == "running_var":
        return (1 + 0.2 * rng.random(shape)).astype(np.float32)
    noise = rng.standard_normal(shape).astype(np.float32)
    if last == "running_mean":
        return 0.1 * noise
    if name.endswith("_codebook.embed"):
        return noise
    # weight norm's gain: near the norm of its direction, over the axes where the gain is 1 wide
    if last in ("weight_g", "original0"):
        direction = name[: -len(last)] + {"weight_g": "weight_v", "original0": "original1"}[last]
        v = _draw(direction, shapes, seed, gain)
        axes = tuple(i for i, n in enumerate(shape) if n == 1)
        return (np.sqrt((v.astype(np.float64) ** 2).sum(axes, keepdims=True)) * (1 + 0.1 * noise)).astype(np.float32)
    if last == "gamma" or ("norm" in name.lower() and last == "weight") or (last == "weight" and len(shape) == 1):
        return 1 + 0.1 * noise
    if len(shape) <= 1 or last in ("bias", "beta", "alpha"):
        return 0.1 * noise + (1.0 if last == "alpha" else 0.0)
    fan_in = int(np.prod(shape[1:]))
    scale = gain / fan_in**0.5
    if (".flows." in name and name.endswith("post.weight")) or name.endswith("estimator.proj_out.weight"):
        scale *= 0.3  # keeps a coupling flow, and a flow-matching solver, well conditioned
    return (noise * scale).astype(np.float32)
