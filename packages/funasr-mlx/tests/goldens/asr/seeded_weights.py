"""Weights drawn by their names, so that recordings need no file of them. NumPy alone."""

import zlib

import numpy as np


def seeded_weights(shapes, gain, adjusted):
    """By name: norms near 1, vectors near 0, embeddings and matrices normal; `adjusted` names factors and offsets."""
    weights = {}
    for name, shape in shapes.items():
        drawn = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
        if "norm" in name and name.endswith("weight"):
            value = 1 + 0.2 * drawn
        elif len(shape) <= 1:
            value = 0.1 * drawn
        elif "embed" in name:
            value = gain * drawn
        else:
            value = gain * drawn / np.sqrt(np.prod(shape[1:]))
        factor, offset = adjusted.get(name, (1, 0))
        weights[name] = (value * np.float32(factor) + np.asarray(offset, np.float32)).astype(np.float32)
    return weights
