"""CNHubert and Chinese RoBERTa against transformers."""

import mlx.core as mx
import numpy as np
import pytest

from gpt_sovits_mlx import ChineseRoberta, CNHubert
from mlx_core import backend
from mlx_core.errors import ConfigError, InputError, WeightsError

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def hubert(golden, weights):
    config, io = golden("hubert")
    wav = io["wav"]
    normed = (wav - wav.mean()) / np.sqrt(wav.var() + 1e-7)
    return config["config"], weights("hubert"), io | {"wav_norm/wav": normed}


@pytest.fixture(scope="module")
def bert(golden, weights):
    return golden("bert")[0], weights("bert"), golden("bert")[1]


@pytest.mark.parametrize("prefix", ["", "wav_norm/"])
def test_hubert(hubert, prefix):
    config, weights, io = hubert
    features = CNHubert.from_state_dict(config, weights)(mx.array(io[f"{prefix}wav"]))
    np.testing.assert_allclose(np.array(features), io[f"{prefix}last_hidden_state"], atol=TOLERANCE)


def test_hubert_under_other_names(hubert):
    config, weights, io = hubert
    norm = "encoder.pos_conv_embed.conv."
    names = {f"{norm}parametrizations.weight.original0": f"{norm}weight_g"}
    names[f"{norm}parametrizations.weight.original1"] = f"{norm}weight_v"
    renamed = {f"hubert.{names.get(name, name)}": value for name, value in weights.items()}
    features = CNHubert.from_state_dict(config, renamed)(mx.array(io["wav"][0]))
    np.testing.assert_allclose(np.array(features), io["last_hidden_state"], atol=TOLERANCE)


def test_hubert_of_two_recordings_and_of_the_shortest(hubert):
    config, weights, io = hubert
    model = CNHubert.from_state_dict(config, weights)
    both = model(mx.array(np.concatenate([io["wav"], io["wav_norm/wav"]])))
    np.testing.assert_allclose(np.array(both[1:]), io["wav_norm/last_hidden_state"], atol=TOLERANCE)
    assert model(mx.ones((1, model.min_samples))).shape == (1, 1, 64)
    for shape in ((1, model.min_samples - 1), (1, 1, 500)):
        with pytest.raises(InputError, match=f"S >= {model.min_samples}"):
            model(mx.zeros(shape))


def test_the_first_layer_by_its_definition(hubert):
    # over 30,000 frames, where sums one by one would be off by 1e-5; with an offset, as bad microphones have it
    config, weights, _ = hubert
    layer = CNHubert.from_state_dict(config, weights).feature_extractor.conv_layers[0]
    x = np.random.default_rng(0).standard_normal((2, 150007)) * [[0.1], [0.01]] + 0.2
    kernel = weights["feature_extractor.conv_layers.0.conv.weight"][:, 0].astype(np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(x.astype(np.float32), 10, axis=1)[:, ::5]
    made = windows @ kernel.T
    normed = (made - made.mean(1, keepdims=True)) / np.sqrt(made.var(1, keepdims=True) + 1e-5)
    expected = normed * np.array(layer.layer_norm.weight) + np.array(layer.layer_norm.bias)
    found = layer.layer_norm(mx.array(x.astype(np.float32))[..., None], layer.conv)
    # MLX's own BLAS on Linux adds numbers one by one
    np.testing.assert_allclose(np.array(found), expected, atol=2e-5 if backend.current().fast_blas else 3e-4)


@pytest.mark.parametrize(
    "change", [{"do_stable_layer_norm": True}, {"feat_extract_norm": "layer"}, {"conv_kernel": [1]}]
)
def test_hubert_of_another_kind(hubert, change):
    config, weights, _ = hubert
    with pytest.raises(ConfigError):
        CNHubert.from_state_dict({**config, **change}, weights)


def test_bert(bert):
    config, weights, io = bert
    model = ChineseRoberta.from_state_dict(config["config"], weights)
    for i, word2ph in enumerate(config["word2ph"]):
        features = model.phone_features(io[f"{i}/input_ids"][0], word2ph)
        np.testing.assert_allclose(np.array(features), io[f"{i}/phone_feature"].T, atol=TOLERANCE)
        characters = model(mx.array(io[f"{i}/input_ids"]))[0, 1:-1]
        np.testing.assert_allclose(np.array(characters), io[f"{i}/char_feature"], atol=TOLERANCE)


def test_bert_under_other_names_and_without_what_is_not_run(bert):
    config, weights, io = bert
    renamed = {}
    for name, value in weights.items():
        if not name.startswith(("cls.", "bert.encoder.layer.2.", "bert.encoder.layer.3.")):
            name = name.removeprefix("bert.")
            name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
            renamed[name] = value
    model = ChineseRoberta.from_state_dict(config["config"], renamed)
    features = model.phone_features(io["0/input_ids"], config["word2ph"][0])
    np.testing.assert_allclose(np.array(features), io["0/phone_feature"].T, atol=TOLERANCE)


def test_bert_refuses_what_does_not_fit(bert):
    config, weights, io = bert
    model = ChineseRoberta.from_state_dict(config["config"], weights)
    with pytest.raises(InputError, match="6 characters; found 5"):
        model.phone_features(io["0/input_ids"][0], config["word2ph"][0][:-1])
    with pytest.raises(InputError, match="512"):
        model(mx.zeros((1, 513), mx.int32))
    with pytest.raises(WeightsError, match="missing"):
        ChineseRoberta.from_state_dict({**config["config"], "num_hidden_layers": 7}, weights)
