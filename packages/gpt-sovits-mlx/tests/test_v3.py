"""SoVITS v3 and v4 and their vocoders against the official code; laws of the parts that have them."""

import dataclasses
import json

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx.utils import tree_flatten
from safetensors.numpy import load_file, save_file

from gpt_sovits_mlx import (
    BigVGAN,
    HiFiGAN,
    Prompt,
    SoVITSV3,
    convert,
    decode_together,
    read_released,
    reference_spectrogram,
)
from gpt_sovits_mlx.checkpoints.lora import merge_lora
from gpt_sovits_mlx.networks import released_sizes as released
from gpt_sovits_mlx.networks.base import EncoderConfig
from gpt_sovits_mlx.networks.dit import Attention, DiTConfig, FlowMatching
from gpt_sovits_mlx.networks.snake import Snake, sine_squared
from gpt_sovits_mlx.networks.sovits_v3 import denormalised, normalised
from gpt_sovits_mlx.networks.vocoder import in_chunks
from gpt_sovits_mlx.synthesis.overlap import sola
from mlx_core import backend
from mlx_core.errors import AudioError, ConfigError, InputError, WeightsError

VERSIONS = ("v3", "v4")
TOLERANCE = 1e-4  # fp32 on both sides
VOCODERS = {"v3": (BigVGAN, 1e-3), "v4": (HiFiGAN, 1e-4)}  # v3's golden turns at random weights by 2e-4 with the sine


class Case:
    def __init__(self, version, config, io, weights, vocoder, lora):
        self.version, self.config, self.io, self.weights = version, config, io, weights
        self.lora = lora
        self.model = SoVITSV3.from_state_dict(config["hps"], weights)
        kind, self.vocoder_tolerance = VOCODERS[version]
        self.vocoder = kind.from_state_dict(config["vocoder"], vocoder)
        self.codes, self.phones, self.steps = io["codes"][0, 0], io["phones"][0], config["steps"]
        self.voice = self.model.voice([reference_spectrogram(io["refer_wav"])])
        features, length = mx.array(io["fea"].transpose(0, 2, 1)), config["prompt_frames"]
        self.prompt = Prompt(features[:, :length], mx.array(io["mel_prompt"].transpose(0, 2, 1)))
        self.features, self.noise = features[:, length:], io["cfm_noise"][0, :, length:].T

    def expected(self, name):
        return self.io[name][0, :, self.config["prompt_frames"] :].T


@pytest.fixture(scope="module")
def cases(golden, goldens, weights):
    made = {}

    def case(version):
        if version not in made:
            name = f"sovits_{version}"
            lora = load_file(goldens / name / "lora.safetensors")
            made[version] = Case(version, *golden(name), weights(name), weights(name, "vocoder_weights"), lora)
        return made[version]

    return case


@pytest.fixture(params=VERSIONS)
def case(request, cases):
    return cases(request.param)


@pytest.fixture(params=[True, False], ids=["polynomials", "mlx"])
def either(request, monkeypatch):
    """Both ways to compute what Linux CPUs have their own way for."""
    monkeypatch.setattr("mlx_core.ops.attention._FEWEST_SCORES", 0)
    with backend.override(fast_elementwise=request.param):
        yield


def relative(found, expected):
    return np.abs(np.array(found) - expected).max() / np.abs(expected).max()


def test_versions_and_the_voice(case):
    assert case.model.version == case.version
    np.testing.assert_allclose(np.array(case.voice).transpose(0, 2, 1), case.io["ge"], atol=TOLERANCE)
    twice = case.model.voice([reference_spectrogram(case.io["refer_wav"])] * 2)
    np.testing.assert_allclose(np.array(twice), np.array(case.voice), atol=1e-5)


def test_mel_spectrogram(case):
    mel = case.model.mel(case.io["refer_wav"])
    np.testing.assert_allclose(np.array(denormalised(mel)).T, case.io["mel"][0], atol=TOLERANCE)
    length = case.config["prompt_frames"]
    np.testing.assert_allclose(np.array(mel[:length]), case.io["mel_prompt"][0].T, atol=TOLERANCE)
    with pytest.raises(AudioError):
        case.model.mel(np.zeros(100, np.float32))


@pytest.mark.parametrize(("speed", "name"), [(1.0, "fea"), (1.3, "fea_speed13")])
def test_features(case, speed, name):
    """At speed 1.3 v4's last frame is beyond what is kept, and zero."""
    features = case.model.features(case.codes, case.phones, case.voice, speed=speed)
    expected, found = case.io[name][0], np.array(features)[0].T
    assert found.shape == tuple(case.config["shapes"].get(name, case.io[name].shape)[1:])
    np.testing.assert_allclose(found if name == "fea" else found[::8], expected, atol=TOLERANCE)


@pytest.mark.parametrize(("guidance", "name"), [(0.0, "cfm_out"), (0.5, "cfm_out_cfg05")])
def test_flow(case, either, guidance, name):
    mel = case.model.sample(case.features, case.prompt, steps=case.steps, guidance=guidance, noise=case.noise)
    assert relative(mel[0], case.expected(name)) < 1e-4


def test_vocoder(case, either):
    mel, audio = case.io["voc_in"][0].T, case.io["audio"][0, 0]  # every fourth sample
    for chunk_frames in (None, 16):
        samples = np.array(case.vocoder.speak(mel, chunk_frames=chunk_frames))
        assert samples.shape == (case.config["shapes"]["audio"][-1],)
        np.testing.assert_allclose(samples[::4], audio, atol=case.vocoder_tolerance)
    pieces = list(case.vocoder.stream([mel[:5], mel[5:25], mel[25:]], chunk_frames=13))
    np.testing.assert_allclose(np.array(mx.concatenate(pieces)), samples, atol=1e-5)


def test_decode_is_its_parts(case):
    model, prompt = case.model, case.model.prompt(case.codes, case.phones, case.voice, case.io["mel"][0].T)
    assert prompt.features.shape == (1, *case.io["fea"].shape[:0:-1])
    noise = np.random.default_rng(0).standard_normal((60, 100)).astype(np.float32)
    options = {"steps": 2, "noise": noise, "temperature": 0.5}
    found = model.decode(case.codes, case.phones, case.voice, prompt, case.vocoder, speed=1.3, **options)
    features = model.features(case.codes, case.phones, case.voice, speed=1.3)
    mel = model.sample(features, prompt, steps=2, noise=noise * 0.5)[0]
    expected = case.vocoder.speak(denormalised(mel), chunk_frames=None)
    np.testing.assert_allclose(np.array(found), np.array(expected), atol=case.vocoder_tolerance)
    assert found.shape[0] == features.shape[1] * case.vocoder.config.hop_length_samples


def test_windows_go_on_from_each_other(cases, monkeypatch):
    """The official loop, written down for windows of 20 frames after a prompt of 6."""
    case, P, size = cases("v4"), 6, 14
    model = case.model
    shorter = dataclasses.replace(model._version, prompt_frames=P, window_frames=P + size)
    monkeypatch.setattr(model, "_version", shorter)
    rng = np.random.default_rng(1)
    features = mx.array(rng.standard_normal((1, 33, 512)).astype(np.float32))
    noise = rng.standard_normal((33, 100)).astype(np.float32)
    prompt = Prompt(features[:, :P], mx.array(rng.uniform(-1, 1, (1, P, 100)).astype(np.float32)))
    found = list(model.windows(features, prompt, steps=2, noise=noise))
    assert [len(window) for window in found] == [14, 14, 5]
    heard, said, expected = prompt.mel, prompt.features, []
    for start in (0, 14, 28):
        part = features[:, start : start + size]
        joint = mx.concatenate([said, part], axis=1)
        expected.append(model.cfm.sample(joint, heard, mx.array(noise[None, start : start + size]), steps=2))
        heard, said = expected[-1][:, -P:], part[:, -P:]
    np.testing.assert_allclose(
        np.array(normalised(mx.concatenate(found))), np.array(mx.concatenate(expected, axis=1)[0]), atol=1e-4
    )
    # the last frames of a prompt, among those that have features and a spectrogram
    mel = np.arange(10000).reshape(100, 100) / 10000
    for frames, tokens, last in ((100, 20, 80), (75, 20, 75)):
        trimmed = model.prompt(range(tokens), [1, 2], case.voice, mel[:frames].astype(np.float32))
        np.testing.assert_allclose(np.array(trimmed.mel[0]), mel[last - P : last])
        whole = model.features(range(tokens), [1, 2], case.voice)
        assert mx.array_equal(trimmed.features, whole[:, last - P : last])


def test_sentences_together(cases, monkeypatch):
    """Two sentences in windows of 20 frames, of which 12 overlap; the first frames are zero, and cut off."""
    case, P, size = cases("v4"), 6, 20
    shorter = dataclasses.replace(case.model._version, prompt_frames=P, window_frames=P + size)
    monkeypatch.setattr(case.model, "_version", shorter)
    prompt = Prompt(case.prompt.features[:, -P:], case.prompt.mel[:, -P:])
    sentences = [(case.codes[:3], case.phones), (case.codes[3:6], case.phones[:4])]
    features = [case.model.features(*sentence, case.voice, speed=1.3) for sentence in sentences]
    joint = mx.concatenate([mx.zeros((1, 12, 512)), *features], axis=1)
    starts = range(0, joint.shape[1], size - 12)
    noise = np.random.default_rng(0).standard_normal((len(starts), size, 100)).astype(np.float32)
    mels = []
    for start, drawn in zip(starts, noise, strict=True):
        window = joint[:, start : start + size]
        window = mx.pad(window, [(0, 0), (0, size - window.shape[1]), (0, 0)])
        mels.append(case.model.sample(window, prompt, steps=2, noise=drawn)[0])
    samples = np.array(case.vocoder.speak(denormalised(mx.concatenate(mels))))
    whole = sola(np.split(samples, len(starts)), 12 * 480)[12 * 480 :]
    options = {"speed": 1.3, "steps": 2, "noise": noise, "batch_size": 2}
    found = decode_together(case.model, sentences, case.voice, prompt, case.vocoder, **options)
    assert [len(part) for part in found] == [part.shape[1] * 480 for part in features]
    found = np.concatenate([np.array(part) for part in found])
    np.testing.assert_allclose(found, whole[: len(found)], atol=1e-4)
    for wrong in ({"batch_size": 0}, {"noise": noise[1:]}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            decode_together(case.model, sentences, case.voice, prompt, case.vocoder, **{**options, **wrong})


@pytest.mark.parametrize("overlap", [1, 7, 16])
def test_overlaps_agree_and_fade(overlap):
    rng = np.random.default_rng(overlap)
    first, second = rng.standard_normal((2, 40)).astype(np.float32)
    ending, beginning = first[-overlap:], second[:overlap]
    agreement = [
        sum(ending[j + lag] * beginning[j] for j in range(overlap) if 0 <= j + lag < overlap)
        for lag in range(-(overlap // 2), overlap - overlap // 2)
    ]
    skipped = int(np.argmax(agreement)) if overlap > 1 else 0
    left = overlap - skipped
    share = np.array([np.sin(np.pi * i / (2 * left)) ** 2 for i in range(left)])
    middle = share * beginning[skipped:] + (1 - share) * first[-left:]
    expected = np.concatenate([first[:-left], middle, second[overlap:]])
    np.testing.assert_allclose(sola([first, second], overlap), expected, atol=1e-6)


def test_seeds(cases):
    case = cases("v4")
    first, again, other = (
        np.array(case.model.sample(case.features, case.prompt, steps=1, seed=seed)) for seed in (1, 1, 2)
    )
    assert (first == again).all()
    assert np.abs(first - other).max() > 0.1


def test_steps_have_defaults(cases, monkeypatch):
    seen = []
    monkeypatch.setattr(FlowMatching, "sample", lambda self, *args, steps, guidance: seen.append((steps, guidance)))
    for version in VERSIONS:
        cases(version).model.sample(cases(version).features, cases(version).prompt)
    assert seen == [(32, 0.0), (8, 0.0)]


def test_what_is_refused(cases):
    case = cases("v3")
    model, prompt, features = case.model, case.prompt, case.features
    for wrong in ({"steps": 0}, {"guidance": -1.0}, {"temperature": float("nan")}, {"noise": case.noise[:3]}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            model.sample(features, prompt, **wrong)
    with pytest.raises(InputError, match="speed"):
        model.features(case.codes, case.phones, case.voice, speed=0)
    with pytest.raises(InputError, match="mel must be"):
        model.prompt(case.codes, case.phones, case.voice, np.zeros((5, 80), np.float32))
    with pytest.raises(InputError, match="mel must be"):
        case.vocoder.speak(np.zeros((5, 80), np.float32))
    with pytest.raises(InputError, match="chunk_frames"):
        case.vocoder.speak(np.zeros((5, 100), np.float32), chunk_frames=0)
    with pytest.raises(InputError, match="one reference"):
        model.voice([])
    for change in ({"version": "v5"}, {"gin_channels": 1024}):
        with pytest.raises(ConfigError, match=next(iter(change))):
            SoVITSV3.from_state_dict({"model": {**case.config["hps"]["model"], **change}}, case.weights)
    weights = {name: value for name, value in case.weights.items() if name != "cfm.estimator.proj_out.bias"}
    with pytest.raises(WeightsError, match=r"cfm\.estimator\.proj_out\.bias"):
        SoVITSV3.from_state_dict(case.config["hps"], weights)
    for change in ({"activation": "relu"}, {"resblock": "3"}, {"num_mels": 0}):
        with pytest.raises(ConfigError, match=next(iter(change))):
            BigVGAN.from_state_dict({**case.config["vocoder"], **change}, {})


def test_a_lora_is_merged(case):
    model = SoVITSV3.from_state_dict(case.config["hps"], {**case.weights, **case.lora})
    mel = model.sample(case.features, case.prompt, steps=case.steps, noise=case.noise)
    assert relative(mel[0], case.expected("lora/cfm_out")) < 1e-4
    assert model.state_dict().keys() == case.model.state_dict().keys()


def test_lora_files(case, torch_file, tmp_path):
    """With peft's names, a tensor of its own, and the base in either form."""
    head, version = {"v3": (b"03", "v3-lora"), "v4": (b"04", "v4-lora")}[case.version]
    own = {"bridge.0.bias": np.arange(512, dtype=np.float32) / 512}
    # what a file doesn't say, its head does
    table = {key: value for key, value in case.config["hps"]["model"].items() if key != "version"}
    config = {**case.config["hps"], "model": table}
    lora, base = tmp_path / "lora.pth", tmp_path / "base.pth"
    lora.write_bytes(torch_file({**case.lora, **own}, config, head=head))
    base.write_bytes(torch_file(case.weights, config))
    assert read_released(lora).sovits_version == version
    expected = SoVITSV3.from_state_dict(case.config["hps"], {**case.weights, **case.lora, **own}).state_dict()
    loads = [(lora, base)]
    if case.version == "v4":
        convert(base, tmp_path / "folder", dtype="float32")
        convert(lora, tmp_path / "merged", base=base, dtype="float32")
        loads += [(lora, tmp_path / "folder"), (tmp_path / "merged", None)]
    for path, under in loads:
        model = SoVITSV3.load(path, base=under)
        assert model.version == case.version
        for name, value in model.state_dict().items():
            assert mx.allclose(value, expected[name], rtol=0, atol=1e-6)
    with pytest.raises(ConfigError, match="base"):
        SoVITSV3.load(lora)
    with pytest.raises(ConfigError, match="base"):
        convert(lora, tmp_path / "alone")


def test_loras_that_do_not_fit():
    a, b, base = mx.ones((2, 6)), mx.ones((4, 2)), {"cfm.estimator.x.weight": mx.ones((4, 6), dtype=mx.float16)}
    name = "cfm.base_model.model.estimator.x"
    lora = {f"{name}.lora_A.default.weight": a, f"{name}.lora_B.default.weight": b}
    (merged,) = merge_lora({**base, **lora}).values()
    assert merged.dtype == mx.float16
    assert mx.all(merged == 3).item()
    assert merge_lora({f"{name}.base_layer.weight": base["cfm.estimator.x.weight"], **lora}).keys() == base.keys()
    for key in lora:
        with pytest.raises(WeightsError, match="incomplete"):
            merge_lora({**base, **{other: value for other, value in lora.items() if other != key}})
        with pytest.raises(WeightsError, match="by"):
            merge_lora({**base, **lora, key: mx.ones((5, 5))})
    with pytest.raises(WeightsError, match="base"):
        merge_lora(lora)


def test_versions_that_files_tell(cases, torch_file, tmp_path):
    config = {"model": {"version": "v2"}}
    weights = {"cfm.estimator.proj_out.weight": np.zeros((1, 2), np.float32)}
    path = tmp_path / "file.pth"
    for head, stated, version in (
        (b"PK", "v4", "v4"),
        (b"PK", "v2", "v3"),
        (b"02", "v4", "v3"),
        (b"PK", "v3", "v3"),
    ):
        path.write_bytes(torch_file(weights, {"model": {"version": stated}}, head=head))
        found = read_released(path)
        assert found.sovits_version == version
        assert found.full_config["model"]["version"] == version
    path.write_bytes(torch_file(weights, config))
    pretrained = dataclasses.replace(read_released(path), info="pretrained_s2G_v4")
    assert pretrained.sovits_version == pretrained.full_config["model"]["version"] == "v4"


def test_leftovers_are_dropped(cases):
    case = cases("v3")
    extra = {"cfm.estimator.rotary_embed.inv_freq": np.zeros(32, np.float32)}
    without = {name: value for name, value in case.weights.items() if not name.startswith("linear_mel")}
    found = SoVITSV3.from_state_dict(case.config["hps"], {**without, **extra})
    assert found.state_dict().keys() == case.model.state_dict().keys()


def test_vocoders_convert(cases, weights, torch_file, tmp_path):
    for version, (kind, _) in VOCODERS.items():
        case = cases(version)
        (tmp_path / version).mkdir()
        given = weights(f"sovits_{version}", "vocoder_weights")
        if version == "v3":  # as released, but for the weights' place in the pickle
            (tmp_path / "v3/bigvgan_generator.pt").write_bytes(torch_file(given, {}))
            (tmp_path / "v3/config.json").write_text(json.dumps(case.config["vocoder"]))
        else:
            save_file(given, tmp_path / "v4/model.safetensors")
            (tmp_path / "v4/config.json").write_text(json.dumps(case.config["vocoder"]))
        assert convert(tmp_path / version, tmp_path / f"{version}-out", dtype="float32") is kind
        again = kind.load(tmp_path / f"{version}-out")
        mel = case.io["voc_in"][0].T
        assert mx.array_equal(again.speak(mel), case.vocoder.speak(mel))
    assert (cases("v3").vocoder.sample_rate, cases("v4").vocoder.sample_rate) == (24000, 48000)


def test_released_sizes_take_the_released_names(case):
    """The golden's names; in the shapes, the sizes that the goldens made small at their released values."""
    expected = {}
    for name, shape in case.config["weights"].items():
        if name.startswith("cfm."):
            if "text_blocks" not in name and "time_mlp.0" not in name:
                shape = [size * 8 if size in (128, 256, 768, 8) else {712: 712}.get(size, size) for size in shape]
            elif "time_mlp.0" in name:
                shape = [1024, *shape[1:]]
        else:
            shape = [768 if size == 256 and ".ffn_layers." in name else size for size in shape]
        copies = [name]
        if ".transformer_blocks.1." in name:
            copies = [name.replace("blocks.1.", f"blocks.{i}.") for i in range(1, 22)]
        for stack, small, full in (("encoder_text", 4, 6), ("encoder_ssl", 2, 3), ("encoder2", 2, 3)):
            if f".{stack}." in name and f".{small - 1}." in name.split(stack)[1][:30]:
                copies = [name.replace(f".{small - 1}.", f".{layer}.") for layer in range(small - 1, full)]
        expected |= {copy: mx.zeros(shape) for copy in copies}
    model = SoVITSV3.from_state_dict({"model": {"version": case.version}}, expected, lazy=True)
    assert model.version == case.version
    like = released.released_sovits(case.version)
    assert {n: v.shape for n, v in model.state_dict().items()} == {n: v.shape for n, v in like.state_dict().items()}
    vocoder = released.released_vocoder(case.version)
    assert {n for n in vocoder.state_dict() if "conv_post" not in n} == {
        n for n in case.vocoder.state_dict() if "conv_post" not in n
    }
    assert (
        vocoder.state_dict()["ups.0.0.weight" if case.version == "v3" else "ups.0.weight"].shape
        == {
            "v3": (1536, 768, 8),
            "v4": (512, 256, 20),
        }[case.version]
    )


def test_sizes_come_from_the_weights():
    config = DiTConfig(dim=96, depth=3, heads=4, dim_head=16, ff_mult=3, text_dim=12, conv_layers=2, mel_dim=7)
    weights = {f"cfm.{name}": mx.zeros(value.shape) for name, value in _state(FlowMatching(config)).items()}
    assert DiTConfig.of({"dit": {"dim_head": 16}}, weights) == config
    assert DiTConfig.of({"dit": dataclasses.asdict(config)}, {}) == config
    assert DiTConfig.of({}, {}) == DiTConfig()
    with pytest.raises(ConfigError, match="text_dim"):
        SoVITSV3(EncoderConfig(version="v3"), config, 732)


def _state(module):
    return dict(tree_flatten(module.parameters()))


@pytest.mark.parametrize("T", [1, 3, 20])
def test_rotary_positions_turn_the_first_head_alone(either, T):
    module = released.randomised(Attention(DiTConfig(dim=32, heads=3, dim_head=8)), seed=T)
    x = np.random.default_rng(T).standard_normal((1, T, 32)).astype(np.float32)
    q, k, v = (np.array(module[name](mx.array(x)))[0] for name in ("to_q", "to_k", "to_v"))
    for y in (q, k):
        for t in range(T):
            for pair in range(4):
                angle = t / 10000 ** (2 * pair / 8)
                a, b = y[t, 2 * pair].item(), y[t, 2 * pair + 1].item()
                y[t, 2 * pair] = a * np.cos(angle) - b * np.sin(angle)
                y[t, 2 * pair + 1] = b * np.cos(angle) + a * np.sin(angle)
    out = np.zeros((T, 24))
    for head in range(3):
        part = slice(8 * head, 8 * head + 8)
        weights = np.exp(q[:, part] @ k[:, part].T / np.sqrt(8))
        out[:, part] = weights / weights.sum(axis=1, keepdims=True) @ v[:, part]
    expected = np.array(module.to_out[0](mx.array(out[None].astype(np.float32))))
    np.testing.assert_allclose(np.array(module(mx.array(x))), expected, atol=1e-5)


def test_sine_squared_by_its_definition(either):
    x = np.concatenate([np.linspace(-30, 30, 4001), np.linspace(-1000, 1000, 2001), [0.0, -1e4]]).astype(np.float32)
    found = np.array(sine_squared(mx.array(x)))
    np.testing.assert_allclose(found, np.sin(x.astype(np.float64)) ** 2, atol=1e-6)


@settings(max_examples=25)
@given(
    T=st.integers(1, 90),
    beta=st.booleans(),
    logscale=st.booleans(),
    blocks=st.booleans(),
)
def test_snake_by_its_definition(T, beta, logscale, blocks):
    """Zeros between, a filter, the activation, a filter, every other sample; edges repeated."""
    rng = np.random.default_rng(T)
    snake = Snake(3, beta=beta, logscale=logscale)
    snake.alpha = mx.array(rng.uniform(0.5, 2, 3).astype(np.float32))
    if beta:
        snake.beta = mx.array(rng.uniform(0.5, 2, 3).astype(np.float32))
    x, up, down = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, T, 3), 12, 12))
    alpha, height = (np.array(p, dtype=np.float64) for p in (snake.alpha, snake.beta if beta else snake.alpha))
    if logscale:
        alpha, height = np.exp(alpha), np.exp(height)
    expected = np.zeros((2, T, 3))
    for row in range(2):
        for c in range(3):
            padded = np.pad(x[row, :, c].astype(np.float64), 5, mode="edge")
            spaced = np.zeros(2 * len(padded))
            spaced[::2] = padded
            u = 2 * np.convolve(spaced, up)[15 : 15 + 2 * T]
            v = np.pad(u + np.sin(alpha[c] * u) ** 2 / height[c], (5, 6), mode="edge")
            expected[row, :, c] = np.correlate(v, down, "valid")[::2]
    with pytest.MonkeyPatch.context() as patch:
        if blocks:
            patch.setattr("gpt_sovits_mlx.networks.snake.CACHE_BLOCK", 1)  # blocks as small as they come
        found = snake(mx.array(x), mx.array(up), mx.array(down))
    np.testing.assert_allclose(np.array(found), expected, atol=5e-4, rtol=1e-5)


@settings(max_examples=10, deadline=None)
@given(
    T=st.integers(1, 16),
    chunk=st.integers(1, 6),
    resblock=st.sampled_from(["1", "2"]),
    activation=st.sampled_from(["snake", "snakebeta"]),
    stages=st.sampled_from([([2], [4]), ([4, 2], [8, 4]), ([3], [5])]),
)
def test_a_bigvgan_in_chunks_is_the_whole(T, chunk, resblock, activation, stages):
    config = {"num_mels": 5, "upsample_initial_channel": 8, "resblock": resblock, "activation": activation}
    config |= {"upsample_rates": stages[0], "upsample_kernel_sizes": stages[1]}
    # activations see further than these convolutions
    config |= {"resblock_kernel_sizes": [3, 1], "resblock_dilation_sizes": [[1, 1, 1], [1]]}
    vocoder = released.randomised(BigVGAN(released.BigVGANConfig.from_dict(config)), seed=1)
    mel = mx.random.normal((T, 5), key=mx.random.key(T))
    whole = np.array(vocoder.speak(mel, chunk_frames=None))
    assert whole.shape == (T * np.prod(stages[0]),)
    np.testing.assert_allclose(np.array(vocoder.speak(mel, chunk_frames=chunk)), whole, atol=1e-3)


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6), chunk=st.integers(1, 7), context=st.integers(0, 4))
def test_chunks_come_as_soon_as_they_can(sizes, chunk, context):
    """Frames are numbers here, and a sample the sum of those within the context."""
    x, seen = np.random.default_rng(0).standard_normal((1, sum(sizes), 1)), 0

    def generate(z):
        padded = np.pad(np.array(z)[..., 0], [(0, 0), (context, context)])
        return mx.array(np.lib.stride_tricks.sliding_window_view(padded, 2 * context + 1, axis=1).sum(axis=-1))

    def pieces():
        nonlocal seen
        for size in sizes:
            seen += size
            yield mx.array(x[:, seen - size : seen].astype(np.float32))

    done, parts = 0, []
    for part in in_chunks(generate, pieces(), chunk, context, 1):
        done += part.shape[1]
        parts.append(part)
        held_back = seen - done
        assert held_back < chunk + context + max(sizes)
    assert done == sum(sizes)
    expected = np.array(generate(mx.array(x.astype(np.float32))))
    np.testing.assert_allclose(np.array(mx.concatenate(parts, axis=1)), expected, atol=1e-5)
