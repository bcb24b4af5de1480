"""SoVITS v1 to v2ProPlus against the official code; laws of the parts that have them."""

import math

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_sovits_mlx import SoVITS, reference_spectrogram
from gpt_sovits_mlx.networks.prior_encoder import Attention, gather, resize, spread
from gpt_sovits_mlx.networks.released_sizes import SOVITS_CONFIGS, randomised, released_sovits
from gpt_sovits_mlx.networks.vocoder import GeneratorConfig, Vocoder
from mlx_core.errors import AudioError, ConfigError, InputError, WeightsError

VERSIONS = ("v1", "v2", "v2Pro", "v2ProPlus")
TOLERANCE = 1e-4  # fp32 on both sides; samples are in (-1, 1)


class Case:
    def __init__(self, version, config, io, weights):
        self.config, self.io, self.weights = config, io, weights
        self.model = SoVITS.from_state_dict(config["hps"], weights)
        self.codes, self.phones, self.noise = io["codes"][0, 0], io["phones"][0], io["noise"][0].T
        self.spectrograms = [reference_spectrogram(io["refer_wav32k"]), io["refer2_spec"][0].T]
        self.speakers = [io["sv_emb_in"][0], io["sv_emb_in2"][0]] if "Pro" in version else None
        self.voice = self.voices(1)

    def voices(self, count):
        return self.model.voice(self.spectrograms[:count], self.speakers and self.speakers[:count])


@pytest.fixture(scope="module")
def cases(golden, weights):
    made = {}

    def case(version):
        if version not in made:
            config, io = golden(f"sovits_{version}")
            made[version] = Case(version, config, io, weights(f"sovits_{version}"))
        return made[version]

    return case


@pytest.fixture(params=VERSIONS)
def case(request, cases):
    return cases(request.param)


def check(found, expected):
    np.testing.assert_allclose(np.array(found), expected, atol=TOLERANCE)


def check_audio(samples, case, name):
    """Every fourth sample was kept."""
    assert samples.shape == (case.config["shapes"][name][-1],)
    check(samples[::4], case.io[name][0, 0])


def check_channels(found, case, name):
    """Every fourth channel was kept."""
    assert found.transpose(0, 2, 1).shape == tuple(case.config["shapes"][name])
    check(found.transpose(0, 2, 1)[:, ::4], case.io[name])


@pytest.mark.parametrize("version", VERSIONS)
def test_versions(cases, version):
    assert cases(version).model.version == version


def test_spectrogram(case):
    spectrogram = reference_spectrogram(case.io["refer_wav32k"])
    assert spectrogram.shape == (30, 1025)
    check(spectrogram.T[::8], case.io["refer_spec"][0])


def test_codes(case):
    features = mx.array(case.io["ssl"].transpose(0, 2, 1))
    assert case.model.encode(features).tolist() == case.io["ssl_codes"][0, 0].tolist()


def test_voices(case):
    check(case.voice.transpose(0, 2, 1), case.io["ge"])
    check(case.voices(2).transpose(0, 2, 1), case.io["multi_refer/ge"])


def test_prior(case):
    latent = case.model.latent(case.codes, case.phones, case.voice)
    check_channels(latent, case, "enc_p.encoder2")
    for found, name in zip(case.model.enc_p.statistics(latent, 1.0), ("m_p", "logs_p"), strict=True):
        check_channels(found, case, name)


@pytest.mark.parametrize(
    ("speed", "chunk_frames", "name"),
    [(1.0, None, "audio"), (1.3, None, "speed13/audio"), (0.8, None, "speed08/audio"), (0.8, 12, "speed08/audio")],
)
def test_audio(case, speed, chunk_frames, name):
    samples = case.model.decode(
        case.codes, case.phones, case.voice, speed=speed, noise=case.noise, chunk_frames=chunk_frames
    )
    check_audio(samples, case, name)


def test_audio_without_noise_and_of_two_references(case):
    samples = case.model.decode(case.codes, case.phones, case.voice, noise=case.noise, noise_scale=0.0)
    check_audio(samples, case, "audio_noise0")
    samples = case.model.decode(case.codes, case.phones, case.voices(2), noise=case.noise)
    check_audio(samples, case, "multi_refer/audio")


def test_streaming(case):
    first = case.io["stream/k"].item()
    quiet = np.zeros_like(case.noise)
    samples, latent = case.model.decode_next(case.codes[:first], case.phones, case.voice, noise=quiet)
    check_audio(samples, case, "stream/audio1")
    check(latent.transpose(0, 2, 1), case.io["stream/latent1"])
    new = case.codes.size - first + 2
    samples, latent = case.model.decode_next(
        case.codes, case.phones, case.voice, new=new, overlap=latent[:, -4:], noise=quiet
    )
    check_audio(samples, case, "stream/audio2")
    check_channels(latent, case, "stream/latent2")


def test_noise_from_a_seed(cases):
    case = cases("v2")
    first, again, other = (
        np.array(case.model.decode(case.codes, case.phones, case.voice, seed=seed)) for seed in (1, 1, 2)
    )
    assert (first == again).all()
    assert np.abs(first - other).max() > 0.01


def test_what_is_refused(cases):
    case, pro = cases("v2"), cases("v2Pro")
    model, voice = case.model, case.voice
    for codes, phones in (([], [1]), ([1], []), ([1024], [1]), ([1], [732]), ([0.5], [1])):
        with pytest.raises(InputError):
            model.decode(codes, phones, voice)
    for wrong in ({"speed": 0.0}, {"noise": case.noise[:3]}, {"chunk_frames": 0}, {"speed": math.nan}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            model.decode(case.codes, case.phones, voice, **wrong)
    with pytest.raises(InputError, match="new"):
        model.decode_next(case.codes, case.phones, voice, new=14)
    with pytest.raises(InputError, match="overlap"):
        model.decode_next(case.codes, case.phones, voice, overlap=mx.zeros((1, 30, 192)))
    with pytest.raises(InputError, match="no speaker embedding"):
        model.voice(case.spectrograms, case.spectrograms)
    with pytest.raises(InputError, match="with a speaker embedding"):
        pro.model.voice(pro.spectrograms)
    with pytest.raises(InputError, match="20480"):
        pro.model.voice(pro.spectrograms[:1], [np.zeros(192, np.float32)])
    with pytest.raises(InputError, match="one reference or more"):
        model.voice([])
    for samples in (np.zeros(704), np.zeros((2, 9000)), np.full(9000, np.nan)):
        with pytest.raises(AudioError):
            reference_spectrogram(samples.astype(np.float32))


def test_loud_references_are_divided_by_their_peak_at_most_by_two():
    x = np.sin(np.arange(6400) / 7).astype(np.float32)
    peak = float(np.abs(x).max())
    quiet = np.array(reference_spectrogram(x * np.float32(0.5)))
    for factor, left in ((1.0, 1.0), (1.5, 1 / peak), (3.0, 1.5)):
        found = np.array(reference_spectrogram(x * np.float32(factor)))
        np.testing.assert_allclose(found, quiet * left * 2, rtol=1e-4, atol=1e-3)


def test_checkpoints_that_do_not_fit(cases):
    case = cases("v2")
    hps = case.config["hps"]
    with pytest.raises(WeightsError, match=r"dec\.conv_pre\.bias"):
        SoVITS.from_state_dict(hps, {n: w for n, w in case.weights.items() if n != "dec.conv_pre.bias"})
    with pytest.raises(WeightsError, match="weight_v"):
        SoVITS.from_state_dict(hps, {n: w for n, w in case.weights.items() if n != "dec.ups.0.weight_v"})
    with pytest.raises(WeightsError, match=r"no place in the model: extra"):
        SoVITS.from_state_dict(hps, {**case.weights, "extra": np.zeros(1, np.float32)})
    with pytest.raises(ConfigError, match="v3"):
        SoVITS.from_state_dict(hps, {"cfm.estimator.proj_out.weight": np.zeros(1, np.float32)})
    for change in (
        {"gin_channels": 256},
        {"n_heads": 5},
        {"upsample_rates": "10"},
        {"upsample_rates": [10, -8]},
        {"resblock_kernel_sizes": [2, 7, 11]},
        {"upsample_kernel_sizes": [15, 16, 8, 2, 2]},
    ):
        with pytest.raises(ConfigError, match=next(iter(change))):
            SoVITS.from_state_dict({"model": {**hps["model"], **change}}, case.weights)


def test_training_leftovers_are_dropped(cases):
    case = cases("v1")
    weights = {**case.weights, "enc_q.pre.weight": np.zeros((1, 2, 3), np.float32)}
    found = SoVITS.from_state_dict(case.config["hps"], weights)
    assert not any(name.startswith("enc_q") for name in found.state_dict())


def test_a_state_dict_makes_the_same_model(cases):
    case = cases("v2Pro")
    again = SoVITS.from_state_dict(case.config["hps"], case.model.state_dict())
    found, expected = (
        np.array(model.decode(case.codes, case.phones, case.voice, noise=case.noise)) for model in (again, case.model)
    )
    assert (found == expected).all()


@settings(max_examples=30)
@given(T=st.integers(1, 12), window=st.integers(1, 5))
def test_spread_and_gather_are_each_others_inverse(T, window):
    near = np.random.default_rng(T).standard_normal((2, 3, T, 2 * window + 1)).astype(np.float32)
    expected = np.zeros((2, 3, T, T), np.float32)
    for i in range(T):
        for j in range(max(0, i - window), min(T, i + window + 1)):
            expected[..., i, j] = near[..., i, j - i + window]
    assert (np.array(spread(mx.array(near), window)) == expected).all()
    inside = np.array([[0 <= i + d - window < T for d in range(2 * window + 1)] for i in range(T)])
    assert (np.array(gather(mx.array(expected), window)) == near * inside).all()


@pytest.mark.parametrize("T", [1, 3, 9, 30])
def test_relative_attention_by_its_definition(T):
    attention = randomised(Attention(8, 2, 4), seed=T)
    x = np.random.default_rng(T).standard_normal((1, T, 8)).astype(np.float32)
    q, k, v = (
        np.array(getattr(attention, name)(mx.array(x)))[0].reshape(T, 2, 4) for name in ("conv_q", "conv_k", "conv_v")
    )
    rel_k, rel_v = np.array(attention.emb_rel_k)[0], np.array(attention.emb_rel_v)[0]
    out = np.zeros((T, 2, 4))
    for head in range(2):
        for i in range(T):
            near = {j: j - i + 4 for j in range(T) if abs(j - i) <= 4}
            scores = np.array([q[i, head] @ (k[j, head] + (rel_k[near[j]] if j in near else 0)) for j in range(T)]) / 2
            weights = np.exp(scores - scores.max())
            weights /= weights.sum()
            for j in range(T):
                out[i, head] += weights[j] * (v[j, head] + (rel_v[near[j]] if j in near else 0))
    expected = np.array(attention.conv_o(mx.array(out.reshape(1, T, 8).astype(np.float32))))
    np.testing.assert_allclose(np.array(attention(mx.array(x), mx.array(x))), expected, atol=1e-5)


@settings(max_examples=30)
@given(T=st.integers(1, 40), length=st.integers(1, 80))
def test_resizing_by_its_definition(T, length):
    x = np.random.default_rng(T).standard_normal((1, T, 2)).astype(np.float32)
    places = np.clip((np.arange(length) + 0.5) * T / length - 0.5, 0, T - 1)
    expected = np.stack([np.interp(places, np.arange(T), x[0, :, c]) for c in range(2)], axis=-1)
    np.testing.assert_allclose(np.array(resize(mx.array(x), length))[0], expected, atol=2e-5)


@settings(max_examples=15)
@given(
    T=st.integers(1, 40),
    chunk=st.integers(1, 20),
    stages=st.sampled_from([([2], [2]), ([4, 2], [8, 4]), ([10, 2], [16, 2]), ([3, 3], [5, 3])]),
    blocks=st.sampled_from([([3], [[1]]), ([3, 7], [[1, 3], [1, 5]]), ([11], [[1, 3, 5]])]),
)
def test_a_vocoder_in_chunks_is_the_whole(T, chunk, stages, blocks):
    (rates, kernels), (block_kernels, dilations) = stages, blocks
    config = GeneratorConfig(
        upsample_initial_channel=8,
        upsample_rates=rates,
        upsample_kernel_sizes=kernels,
        resblock_kernel_sizes=block_kernels,
        resblock_dilation_sizes=dilations,
    )
    vocoder = randomised(Vocoder(6, config, gin=4), seed=1)
    z = mx.random.normal((1, T, 6), key=mx.random.key(T))
    ge = mx.random.normal((1, 1, 4), key=mx.random.key(0))
    parts = list(vocoder.chunks(z, ge, chunk))
    assert [part.shape[1] for part in parts[:-1]] == [chunk * vocoder.hop_length_samples] * (len(parts) - 1)
    np.testing.assert_allclose(np.array(mx.concatenate(parts, axis=1)), np.array(vocoder(z, ge)), atol=1e-5)


@pytest.mark.parametrize("version", VERSIONS)
def test_released_sizes_take_the_released_names(cases, version):
    """The golden's names; in the shapes, the sizes that the goldens made small at their released values."""
    case, plus = cases(version), version == "v2ProPlus"
    expected = {}
    channels = 768 if plus else 512
    for name, shape in case.config["weights"].items():
        shape = [768 if size == 256 and ".ffn_layers." in name else size for size in shape]
        if name.startswith("dec."):  # 64 initial channels, halved five times
            grown = [size * channels // 64 if size in (64, 32, 16, 8, 4, 2) else size for size in shape[:2]]
            shape = grown + shape[2:] if name != "dec.conv_post.weight" else [1, shape[1] * channels // 64, 7]
            if name == "dec.conv_pre.weight":
                shape = [channels, 192, 7]
            if name == "dec.cond.weight":
                shape = [channels, 512 if "Pro" not in version else 1024, 1]
        for stack, small, full in (("encoder_text", 4, 6), ("encoder_ssl", 2, 3), ("encoder2", 2, 3)):
            if f".{stack}." in name and f".{small - 1}." in name.split(stack)[1][:30]:
                for layer in range(small, full):
                    expected[name.replace(f".{small - 1}.", f".{layer}.")] = shape
        expected[name] = shape
    weights = {name: mx.zeros(shape) for name, shape in expected.items()}
    model = SoVITS.from_state_dict({"model": SOVITS_CONFIGS[version]}, weights, lazy=True)
    assert model.version == version
    assert model.state_dict().keys() == released_sovits(version).state_dict().keys()
