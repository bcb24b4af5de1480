"""SeACo-Paraformer's hotwords, and the LSTM that reads them."""

import mlx.core as mx
import numpy as np
import pytest

from funasr_mlx.networks import SeacoParaformer
from funasr_mlx.networks.lstm import LSTM
from mlx_core.errors import ConfigError, InputError

HOTWORDS = [[4, 9], [7], [11, 12, 13], [25, 3, 8, 8]]


@pytest.mark.parametrize("row", [0, 1])
@pytest.mark.parametrize(("recorded", "options"), [("hotwords", {}), ("two_hotwords", {"nfilter": 2})])
def test_what_funasr_computes(asr_case, row, recorded, options):
    case = asr_case("seaco")
    features = mx.array(case.features[row])[None]
    expected = case.io[f"{row}.logp_{recorded}"]
    assert (expected.argmax(-1) != case.io[f"{row}.logp"].argmax(-1)).any()
    # the "nothing" at the end is added where it isn't there
    for words in (HOTWORDS, [*HOTWORDS, [1]]):
        found = case.network(features, [features.shape[1]], words, **options)
        np.testing.assert_allclose(found.logits, expected, atol=2e-5 * np.abs(expected).max())


def test_a_batch_is_its_rows_each_with_the_hotwords_of_its_own(asr_case):
    case = asr_case("seaco")
    lengths = [len(row) for row in case.features]
    padded = np.full((2, max(lengths), case.features[0].shape[1]), 7, np.float32)
    for target, row in zip(padded, case.features, strict=True):
        target[: len(row)] = row
    for order in ([0, 1], [1, 0]):
        batch = case.network(mx.array(padded[order]), [lengths[i] for i in order], HOTWORDS, nfilter=2)
        for place, i in enumerate(order):
            expected = case.io[f"{i}.logp_two_hotwords"][0]
            np.testing.assert_allclose(batch.logits[place, : len(expected)], expected, atol=2e-4)


def test_no_hotwords_are_none(asr_case):
    case = asr_case("seaco")
    features = mx.array(case.features[0])[None]
    none, empty = (case.network(features, [features.shape[1]], words) for words in (None, []))
    np.testing.assert_array_equal(none.logits, empty.logits)


def test_enough_hotwords_to_choose_from(asr_case):
    """By default there are fifty at most."""
    case = asr_case("seaco")
    features = mx.array(case.features[0])[None]
    words = [[3 + i % 26, 3 + i // 2] for i in range(51)]

    def logits(words, **options):
        return np.array(case.network(features, [features.shape[1]], words, **options).logits)

    assert not np.allclose(logits(words), logits(words, nfilter=0), atol=1e-6)
    np.testing.assert_array_equal(logits(words[:49]), logits(words[:49], nfilter=0))  # 50 with the one at the end
    np.testing.assert_array_equal(logits(words), logits(words, nfilter=50))


@pytest.mark.parametrize("word", [[], [30], [-1], [1.5], "ab", [[1]]])
@pytest.mark.parametrize("name", ["seaco", "contextual"])
def test_hotwords_that_are_no_ids_are_refused(asr_case, name, word):
    case = asr_case(name)
    with pytest.raises(InputError, match="hotword"):
        case.network(mx.array(case.features[0])[None], [len(case.features[0])], [[4], word])


@pytest.mark.parametrize(
    "change", [{"inner_dim": 32}, {"bias_encoder_type": "mean"}, {"NO_BIAS": 30}, {"NO_BIAS": "20"}, {"sos": -1}]
)
def test_settings_that_arent_known_are_refused(asr_case, change):
    case = asr_case("seaco")
    config = case.config | {"model_conf": case.config["model_conf"] | change}
    with pytest.raises(ConfigError, match=next(iter(change))):
        SeacoParaformer.from_state_dict(config, case.weights)


def step_by_step(x, lstm, suffix, reverse):
    """Torch's definition, for one row."""
    w, u = (np.array(lstm[f"weight_{kind}{suffix}"]) for kind in ("ih", "hh"))
    b = np.array(lstm[f"bias_ih{suffix}"] + lstm[f"bias_hh{suffix}"])
    h = c = np.zeros(u.shape[1])
    states = np.zeros((len(x), u.shape[1]))
    for t in range(len(x))[:: -1 if reverse else 1]:
        i, f, g, o = np.split(w @ x[t] + u @ h + b, 4)
        c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
        states[t] = h = np.tanh(c) / (1 + np.exp(-o))
    return states


@pytest.mark.parametrize("rows", [1, 2, 7])  # few rows go another way than many
@pytest.mark.parametrize("both", [False, True])
def test_the_lstm_is_its_definition(rows, both):
    rng = np.random.default_rng(rows)
    lstm = LSTM(3, 4, layers=2, bidirectional=both)
    for name in list(lstm):
        if isinstance(lstm[name], mx.array):
            lstm[name] = mx.array(rng.standard_normal(lstm[name].shape).astype(np.float32))
    lengths = rng.integers(1, 6, rows)
    x = rng.standard_normal((rows, 6, 3)).astype(np.float32)
    found = np.array(lstm(mx.array(x), lengths))
    for row, length, states in zip(x, lengths, found, strict=True):
        expected = row[:length]
        for layer in ("_l0", "_l1"):
            directions = [step_by_step(expected, lstm, layer, False)]
            if both:
                directions.append(step_by_step(expected, lstm, layer + "_reverse", True))
            expected = np.concatenate(directions, axis=1)
        np.testing.assert_allclose(states[:length], expected, atol=1e-5)
