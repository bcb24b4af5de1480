"""The speaker net and its filter bank against the official code and torchaudio."""

import mlx.core as mx
import numpy as np
import pytest

from gpt_sovits_mlx import ERes2NetV2, speaker_fbank
from gpt_sovits_mlx.networks.released_sizes import randomised
from gpt_sovits_mlx.networks.speaker import ERes2NetV2Config, fold_batch_norms
from mlx_core.errors import AudioError, InputError, WeightsError


@pytest.fixture(scope="module")
def case(golden, weights):
    return weights("sovits_v2Pro", "sv_weights"), golden("sovits_v2Pro")[1]


@pytest.fixture(scope="module")
def model(case):
    return ERes2NetV2.from_state_dict(None, case[0])


def test_fbank(case):
    # torchaudio's is fp32: its quietest bins, of energy 0.03, differ by 1.4e-4 from exact ones
    np.testing.assert_allclose(np.array(speaker_fbank(case[1]["sv_wav16k"])), case[1]["sv_fbank"], atol=3e-4)


def test_embedding(model, case):
    expected = case[1]["sv/emb20480"]  # every fourth, up to 39
    found = np.array(model(mx.array(case[1]["sv_fbank"])))
    assert found.shape == (1, 20480)
    np.testing.assert_allclose(found[:, ::4], expected, rtol=1e-4, atol=1e-4)
    whole = model(speaker_fbank(case[1]["sv_wav16k"]))
    np.testing.assert_allclose(np.array(whole)[:, ::4], expected, rtol=1e-4, atol=5e-4)


def test_a_folded_state_dict_makes_the_same_model(model, case):
    folded = model.state_dict()
    assert not any("bn" in name or "running" in name for name in folded)
    again = ERes2NetV2.from_state_dict({}, folded)
    x = mx.array(case[1]["sv_fbank"])
    assert (np.array(again(x)) == np.array(model(x))).all()


def test_other_sizes(case):
    config = {"m_channels": 16, "num_blocks": [1, 2, 1, 2], "baseWidth": 32, "scale": 2, "expansion": 2}
    made = randomised(ERes2NetV2(ERes2NetV2Config.from_dict(config)))
    assert made(mx.zeros((33, 80))).shape == (1, 16 * 8 * 2 * 10)


def test_what_is_refused(model, case):
    for shape in ((0, 80), (10, 79), (10,)):
        with pytest.raises(InputError, match="80"):
            model(mx.zeros(shape))
    for samples in (np.zeros(399, np.float32), np.zeros((1, 900), np.float32), np.full(900, np.inf, np.float32)):
        with pytest.raises(AudioError):
            speaker_fbank(samples)
    with pytest.raises(WeightsError, match="bn1"):
        fold_batch_norms({"bn1.running_mean": mx.zeros((4,)), "conv1.weight": mx.zeros((4, 1, 3, 3))})
    with pytest.raises(WeightsError, match="missing"):
        ERes2NetV2.from_state_dict(None, {n: w for n, w in case[0].items() if n != "layer3_ds.weight"})
