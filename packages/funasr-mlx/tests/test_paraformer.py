"""Paraformer and BiCif: FunASR's recordings, batches, and what is refused."""

import mlx.core as mx
import numpy as np
import pytest

from funasr_mlx.networks import BiCifParaformer, Paraformer, find_recognizer
from mlx_core.errors import ConfigError, InputError, WeightsError

PLAIN = ["paraformer", "paraformer_faint", "paraformer_no_tail", "paraformer_fast"]
BICIF = ["bicif", "bicif_fast", "bicif_attention"]
ALL = [*PLAIN, *BICIF, "seaco", "contextual"]
PARTS = ["encoder_out", "acoustic_embeds", "logits", "alphas", "peaks", "cif_alphas", "cif_peaks"]


def close(found, expected, tolerance):
    expected = np.asarray(expected)
    assert tuple(found.shape) == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def log_softmax(logits):
    return logits - mx.logsumexp(logits, axis=-1, keepdims=True)


@pytest.mark.parametrize("row", [0, 1])
@pytest.mark.parametrize("name", ALL)
def test_what_funasr_computes(asr_case, name, row):
    case = asr_case(name)
    io = {key.removeprefix(f"{row}."): value for key, value in case.io.items() if key.startswith(f"{row}.")}
    found = case.network(mx.array(case.features[row])[None], [len(case.features[row])])
    close(found.encoder_out, io["encoder_out"], 2e-5)
    assert found.token_num.dtype == mx.int32
    assert found.token_num.tolist() == io["token_num"].tolist()
    close(found.acoustic_embeds, io["acoustic_embeds"], 1e-5)
    close(found.cif_alphas, io["cif_alphas"], 1e-5)
    close(found.cif_peaks, io["cif_peaks"], 1e-5)
    close(log_softmax(found.logits), io["logp"], 2e-5)
    if "us_alphas" in io:
        close(found.alphas, io["us_alphas"], 1e-5)
        close(found.peaks, io["us_peaks"], 1e-5)
    else:
        assert found.us_alphas is found.us_peaks is None
        assert found.alphas is found.cif_alphas
        assert found.peaks is found.cif_peaks


@pytest.mark.parametrize("name", ALL)
def test_a_batch_is_its_rows(asr_case, name):
    """Longest first and last, and a row of nothing between; the padding holds what must not be seen."""
    case = asr_case(name)
    rows = [case.features[1], case.features[1][:0], case.features[0], case.features[0][:2]]
    lengths = [len(row) for row in rows]
    padded = np.full((len(rows), max(lengths), rows[0].shape[1]), 7, np.float32)
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = row
    batch = case.network(mx.array(padded), mx.array(lengths))
    assert batch.token_num[1].item() == 0
    for i, row in enumerate(rows):
        alone = case.network(mx.array(row)[None], [len(row)])
        assert batch.token_num[i].item() == alone.token_num[0].item()
        for part in PARTS:
            expected = np.array(getattr(alone, part)[0])
            found = np.array(getattr(batch, part)[i, : len(expected)])
            np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max(initial=1))
    for part in PARTS:
        assert np.isfinite(np.array(getattr(batch, part))).all()


@pytest.mark.parametrize("shape", [(0, 5), (2, 0)])
@pytest.mark.parametrize("name", ["paraformer", "bicif", "seaco", "contextual"])
def test_nothing_gives_nothing(asr_case, name, shape):
    case = asr_case(name)
    found = case.network(mx.zeros((*shape, case.features[0].shape[1])), [0] * shape[0], hotwords=[[4, 5]])
    assert found.token_num.tolist() == [0] * shape[0]
    assert found.logits.shape == (shape[0], 0, 30)
    assert found.encoder_out.shape == (*shape, 16)


@pytest.mark.parametrize("name", ALL)
def test_names_and_layouts_are_the_checkpoints(asr_case, name):
    case = asr_case(name)
    saved = case.network.state_dict()
    for key, value in saved.items():
        np.testing.assert_array_equal(value, case.weights[key])
    left_out = {key for key in case.weights if key not in saved}
    assert all(key.startswith(("ctc.", "decoder.embed.")) for key in left_out)
    again = type(case.network).from_state_dict(case.config, saved)
    assert again.state_dict().keys() == saved.keys()


def test_a_loss_reaches_every_weight(asr_case):
    """The way that training goes: weights of the frames scaled to the tokens that there are."""
    from mlx.utils import tree_flatten

    from funasr_mlx.networks import cif_weights

    case = asr_case("paraformer")
    network = Paraformer.from_state_dict(case.config, case.weights)
    features, tokens = mx.array(case.features[0])[None], 5

    def loss(parameters):
        network.update(parameters)
        encoder_out = network.encoder(features)
        alphas = network.predictor.alphas(encoder_out, None)
        total = alphas.sum()
        embeds = cif_weights(alphas * (tokens / total), tokens) @ encoder_out
        logits = network.decoder.output_layer(network.decoder(embeds, encoder_out))
        return mx.abs(total - tokens) + mx.logsumexp(logits, axis=-1).sum()

    gradients = mx.grad(loss)(network.trainable_parameters())
    for name, gradient in tree_flatten(gradients):
        assert mx.isfinite(gradient).all().item(), name
        # keys' biases shift all scores of a query alike
        assert mx.abs(gradient).max().item() > 0, name


def test_quantised_layers(asr_case):
    case = asr_case("paraformer")
    wider = Paraformer(
        case.config
        | {
            "encoder_conf": case.config["encoder_conf"] | {"output_size": 64, "linear_units": 64},
            "decoder_conf": case.config["decoder_conf"] | {"linear_units": 64},
            "predictor_conf": case.config["predictor_conf"] | {"idim": 64},
        },
        64,
        30,
    )
    wider.quantize(8)
    packed = {name.rpartition(".")[0] for name in wider.state_dict() if name.endswith(".scales")}
    assert {"encoder.encoders0.0.self_attn.linear_q_k_v", "decoder.decoders.1.src_attn.linear_k_v"} <= packed
    assert {"decoder.output_layer", "decoder.decoders2.0.feed_forward.w_2"} <= packed
    assert not any(name.startswith("predictor") for name in packed)


@pytest.mark.parametrize("name", ["paraformer", "seaco", "contextual", "sensevoice"])
def test_features_may_be_numpy_s(asr_case, name):
    network = asr_case(name).network
    features = np.random.default_rng(0).standard_normal((2, 9, 24))
    expected = network(mx.array(features, mx.float32), [9, 6])
    for given in (features, features.astype(np.float32), features.tolist()):
        for lengths in ([9, 6], np.array([9, 6], np.int32), mx.array([9, 6])):
            assert np.array_equal(np.array(network(given, lengths).logits), np.array(expected.logits))


@pytest.mark.parametrize(
    ("features", "lengths"), [((5, 24), [5]), ((1, 5, 25), [5]), ((1, 5, 24), [6]), ((2, 5, 24), [5])]
)
def test_features_that_dont_fit_are_refused(asr_case, features, lengths):
    with pytest.raises(InputError):
        asr_case("paraformer").network(mx.zeros(features), lengths)


@pytest.mark.parametrize(
    "change",
    [
        {"encoder": "ConformerEncoder"},
        {"decoder": "TransformerDecoder"},
        {"predictor": "CifPredictor"},
        {"predictor_conf": {"idim": 8, "l_order": 1, "r_order": 1}},
        {"decoder_conf": {"attention_heads": 3}},
        {"decoder_conf": {"normalize_before": False}},
        {"encoder_conf": []},
    ],
)
def test_configurations_that_arent_known_are_refused(asr_case, change):
    case = asr_case("paraformer")
    with pytest.raises(ConfigError):
        Paraformer.from_state_dict(case.config | change, case.weights)


def test_weights_that_dont_fit_are_refused(asr_case):
    case = asr_case("paraformer")
    without = {key: value for key, value in case.weights.items() if key != "decoder.output_layer.weight"}
    with pytest.raises(WeightsError, match=r"decoder\.output_layer\.weight"):
        Paraformer.from_state_dict(case.config, without)
    with pytest.raises(WeightsError, match=r"have no place in the model: predictor\.blstm"):
        Paraformer.from_state_dict(case.config, asr_case("bicif").weights)
    with pytest.raises(ConfigError, match="CifPredictorV3"):
        BiCifParaformer.from_state_dict(case.config, case.weights)


def test_kinds_that_arent_known_are_refused():
    assert find_recognizer("BiCifParaformer") is BiCifParaformer
    with pytest.raises(ConfigError, match="UniASR"):
        find_recognizer("UniASR")


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
@pytest.mark.parametrize("name", ["paraformer", "bicif", "seaco", "contextual"])
def test_half_precision(asr_case, name, dtype):
    """Frames are weighed in float32; what they are made of isn't, so that it is near, not equal."""
    case = asr_case(name)
    network = type(case.network).from_state_dict(case.config, case.weights, dtype=dtype)
    found = network(mx.array(case.features[0])[None], [len(case.features[0])], [[4, 5]])
    assert found.encoder_out.dtype == found.acoustic_embeds.dtype == found.logits.dtype == dtype
    assert found.alphas.dtype == mx.float32
    expected = case.io["0.cif_alphas"]
    np.testing.assert_allclose(found.cif_alphas, expected, atol=0.1 if dtype == mx.bfloat16 else 0.02)
