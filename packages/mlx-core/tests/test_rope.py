"""RoPE against transformers 5.23.0, whose results `goldens/rope/README.md` describes."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import load_file

from mlx_core.config import DecoderConfig, rope_parameters
from mlx_core.errors import ConfigError
from mlx_core.ops import initialize_rope

GOLDENS = Path(__file__).parent / "goldens" / "rope"
CASES = json.loads((GOLDENS / "rope.json").read_text())["cases"]
ARRAYS = load_file(GOLDENS / "rope.safetensors")

# cos and sin of angles that are rounded to float32: position x 1e-7, and inv_freq itself is rounded once more here
TOLERANCE = 5e-4


def rope_of(config, traditional):
    decoder = DecoderConfig.from_dict(
        {
            "vocab_size": 1,
            "hidden_size": 4 * config["head_dim"],
            "intermediate_size": 1,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            **config,
        }
    )
    return decoder.rope(traditional=traditional)


@pytest.mark.parametrize("layout", ["config", "config_v5"])
@pytest.mark.parametrize("name", CASES)
def test_turns_as_transformers_does(name, layout):
    case = CASES[name]
    head_dim, length = case["config"]["head_dim"], case["sequence_length"]
    positions, x = ARRAYS[f"{name}.positions"], ARRAYS[f"x.{head_dim}"]
    for traditional, golden in ((False, "rotated_halves"), (True, "rotated_pairs")):
        rope = rope_of(case[layout], traditional)
        # one sequence of the case's length, with the vectors at their positions
        sequence = np.zeros((1, 1, length, head_dim), np.float32)
        sequence[0, 0, positions] = x
        whole = np.array(rope(mx.array(sequence)))[0, 0, positions]
        np.testing.assert_allclose(whole, ARRAYS[f"{name}.{golden}"], atol=TOLERANCE)


@pytest.mark.parametrize("name", CASES)
def test_offsets_are_positions(name):
    """Rows of a batch that start elsewhere, and the tail of a sequence, are turned as in the whole."""
    case = CASES[name]
    rope = rope_of(case["config"], traditional=False)
    head_dim, length = case["config"]["head_dim"], case["sequence_length"]
    x = mx.array(np.random.default_rng(0).normal(size=(2, 3, length, head_dim)).astype(np.float32))
    whole = np.array(rope(x))
    n = 5
    tail = rope(x[:, :, length - n :], length - n)
    np.testing.assert_allclose(np.array(tail), whole[:, :, length - n :], atol=1e-4)
    each = rope(x[:, :, length - n :], mx.array([length - n, length - n]))
    np.testing.assert_allclose(np.array(each), whole[:, :, length - n :], atol=1e-4)


def test_dims_beyond_the_turned_ones_pass_through():
    x = mx.random.normal((1, 2, 7, 16), key=mx.random.key(0))
    for scaling in (None, {"rope_type": "yarn", "factor": 4.0}):
        out = initialize_rope(8, 10_000.0, True, scaling, 64)(x, 3)
        assert mx.array_equal(out[..., 8:], x[..., 8:])
        assert not mx.allclose(out[..., :8], x[..., :8])


@pytest.mark.parametrize(
    ("scaling", "message"),
    [
        ({"rope_type": "spiral"}, "unknown rope_type 'spiral'"),
        ({"rope_type": "linear"}, "'factor'"),
        ({"rope_type": "linear", "factor": float("nan")}, "'factor'"),
        ({"rope_type": "linear", "factor": -1}, "'factor'"),
        ({"rope_type": "linear", "factor": True}, "'factor'"),
        ({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 1.0}, "low_freq_factor"),
        ({"rope_type": "longrope", "short_factor": [1.0], "long_factor": [1.0] * 4}, "short_factor"),
        ({"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": "many"}, "long_factor"),
    ],
)
def test_bad_settings_are_named(scaling, message):
    with pytest.raises(ConfigError, match=message):
        initialize_rope(8, 10_000.0, False, scaling, 64)


@pytest.mark.parametrize(("dims", "base"), [(0, 1e4), (7, 1e4), (8, 0.0), (8, float("inf"))])
def test_bad_dimensions_are_refused(dims, base):
    with pytest.raises(ConfigError):
        initialize_rope(dims, base, False)


def test_dynamic_and_yarn_need_the_context_length():
    for kind in ("dynamic", "yarn"):
        with pytest.raises(ConfigError, match="max_position_embeddings"):
            initialize_rope(8, 10_000.0, False, {"rope_type": kind, "factor": 2.0})


def test_both_layouts_read_alike():
    old = {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}, "partial_rotary_factor": 0.5}
    new = {"rope_parameters": {"rope_theta": 5e5, "type": "linear", "factor": 2.0, "partial_rotary_factor": 0.5}}
    assert rope_parameters(old) == rope_parameters(new)
    by_layer = {
        "rope_parameters": {"full_attention": new["rope_parameters"], "sliding_attention": new["rope_parameters"]}
    }
    assert rope_parameters(by_layer) == rope_parameters(new)
    by_layer["rope_parameters"]["sliding_attention"] = {"rope_theta": 1e4}
    with pytest.raises(ConfigError, match="differ by layer type"):
        rope_parameters(by_layer)
    with pytest.raises(ConfigError, match="rope_theta"):
        rope_parameters({"rope_theta": "large"})
