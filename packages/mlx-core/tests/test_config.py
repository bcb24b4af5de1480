"""The configuration of decoders: context lengths, layouts of config.json, tables of packed layers."""

import dataclasses

import pytest

from mlx_core.config import DecoderConfig, LayerQuantization, QuantizationConfig

SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 4096,
}


@pytest.mark.parametrize(
    ("scaling", "length"),
    [
        (None, 4096),
        ({"rope_type": "linear", "factor": 8.0}, 4096),
        ({"type": "linear", "factor": 8.0}, 4096),
        ({"rope_type": "linear", "factor": 8.0, "original_max_position_embeddings": 4096}, 32768),
        ({"rope_type": "linear", "factor": 8.0, "original_max_position_embeddings": 512}, 4096),
        ({"rope_type": "yarn", "factor": 4.0}, 16384),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}, 4096),
        ({"rope_type": "dynamic", "factor": 2.0}, 8192),
        ({"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 1024}, 8192),
    ],
)
def test_the_context_is_as_long_as_scaling_makes_it(scaling, length):
    assert DecoderConfig.from_dict({**SIZES, "rope_scaling": scaling}).context_length == length
    if scaling:
        new = {**scaling, "rope_theta": 1e4}
        assert DecoderConfig.from_dict({**SIZES, "rope_parameters": new}).context_length == length


def test_a_family_may_read_another_layout():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Nested(DecoderConfig):
        @classmethod
        def canonical(cls, config):
            return {**config, **config["inner"]}

    assert Nested.from_dict({"inner": SIZES, "vocab_size": 7}).vocab_size == 50


def test_a_language_model_inside_a_larger_one_finds_its_entry():
    default, other = LayerQuantization(64, 4), LayerQuantization(32, 8)
    table = QuantizationConfig(
        default, {"language_model.model.a": other, "model.b": None, "language_model.model.b": other}
    )
    assert [table.for_path(path) for path in ("model.a", "model.b", "model.c")] == [other, None, default]
