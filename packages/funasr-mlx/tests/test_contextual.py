"""Contextual Paraformer's hotwords."""

import mlx.core as mx
import numpy as np
import pytest

from funasr_mlx.networks import ContextualParaformer
from mlx_core.errors import ConfigError

HOTWORDS = [[4, 9], [7], [11, 12, 13], [25, 3, 8, 8], [1]]


@pytest.mark.parametrize("row", [0, 1])
def test_what_funasr_computes(asr_case, row):
    case = asr_case("contextual")
    features = mx.array(case.features[row])[None]
    logits = case.network(features, [features.shape[1]], HOTWORDS, clas_scale=0.5).logits
    found = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    expected = case.io[f"{row}.logp_hotwords"]
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())


def test_the_decoders_embedding_may_serve_hotwords(asr_case):
    case = asr_case("contextual")
    config = case.config | {"model_conf": case.config["model_conf"] | {"use_decoder_embedding": True}}
    swapped = case.weights | {"decoder.embed.0.weight": case.weights["bias_embed.weight"]}
    network = ContextualParaformer.from_state_dict(config, swapped)
    features = mx.array(case.features[0])[None]
    np.testing.assert_array_equal(
        network(features, [features.shape[1]], HOTWORDS).logits,
        case.network(features, [features.shape[1]], HOTWORDS).logits,
    )


@pytest.mark.parametrize("change", [{"inner_dim": 32}, {"bias_encoder_type": "mean"}])
def test_settings_that_arent_known_are_refused(asr_case, change):
    case = asr_case("contextual")
    config = case.config | {"model_conf": case.config["model_conf"] | change}
    with pytest.raises(ConfigError, match=next(iter(change))):
        ContextualParaformer.from_state_dict(config, case.weights)
