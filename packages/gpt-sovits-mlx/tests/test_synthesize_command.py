"""The command: its options are SpeechOptions, its files what `synthesize` gives."""

import json
from dataclasses import fields

import numpy as np
import pytest
import soundfile

from gpt_sovits_mlx import cli, cloning
from gpt_sovits_mlx.cli import main
from gpt_sovits_mlx.cloning import VoiceCloner
from gpt_sovits_mlx.models import Models
from gpt_sovits_mlx.networks import T2S, CNHubert, CNHubertConfig, SoVITS, SoVITSConfig, T2SConfig
from gpt_sovits_mlx.networks.released_sizes import randomised
from gpt_sovits_mlx.options import SpeechOptions
from mlx_core.audio import save_wav

ALL = {
    "language": ("--language", "en"),
    "split": ("--split", "cut0"),
    "speed": ("--speed", "1.5"),
    "pause_s": ("--pause", "0.2"),
    "seed": ("--seed", "7"),
    "steps": ("--steps", "4"),
    "top_k": ("--top-k", "5"),
    "top_p": ("--top-p", "0.5"),
    "temperature": ("--temperature", "0.9"),
    "repetition_penalty": ("--repetition-penalty", "1.1"),
    "max_tokens": ("--max-tokens", "30"),
}


@pytest.fixture(scope="module")
def models():
    hubert = CNHubertConfig(num_hidden_layers=1, intermediate_size=64, num_attention_heads=4, conv_dim=[16] * 7)
    sovits = SoVITSConfig(
        inter_channels=16,
        hidden_channels=16,
        filter_channels=32,
        n_layers=2,
        resblock_kernel_sizes=[3],
        resblock_dilation_sizes=[[1]],
        upsample_initial_channel=128,
    )
    t2s = T2SConfig(embedding_dim=32, hidden_dim=32, head=2, linear_units=32, n_layer=1)
    networks = T2S(t2s), SoVITS(sovits, 732, speaker=False), CNHubert(hubert)
    return Models(*(randomised(network, seed) for seed, network in enumerate(networks)))


@pytest.fixture
def reference(tmp_path):
    samples = 0.1 * np.random.default_rng(0).standard_normal(4 * 32000).astype(np.float32)
    save_wav(tmp_path / "reference.wav", samples, 32000)
    return tmp_path / "reference.wav"


@pytest.fixture
def asked(models, monkeypatch):
    """How the networks were asked for, with small ones in their place."""
    found = []

    def load_models(path, **options):
        found.append((path, options))
        return models

    monkeypatch.setattr(cloning, "load_models", load_models)
    return found


def test_every_option_has_an_argument():
    assert ALL.keys() == {field.name for field in fields(SpeechOptions)}
    words = ["synthesize", "Hello.", *(word for pair in ALL.values() for word in pair)]
    given = cli._options(cli._parser().parse_args(words))
    assert given == SpeechOptions(
        language="en",
        split="cut0",
        speed=1.5,
        pause_s=0.2,
        seed=7,
        steps=4,
        top_k=5,
        top_p=0.5,
        temperature=0.9,
        repetition_penalty=1.1,
        max_tokens=30,
    )
    assert all(getattr(given, field.name) != field.default for field in fields(SpeechOptions))
    assert cli._options(cli._parser().parse_args(["stream", "Hello."])) == SpeechOptions()


def test_synthesize_writes_what_the_cloner_gives(models, asked, reference, tmp_path, capsys):
    output = tmp_path / "speech.wav"
    words = ["--models", "somewhere", "--version", "v2", "--sovits", "mine.pth", "--reference", str(reference)]
    options = ["--seed", "3", "--max-tokens", "20", "--pause", "0.1"]
    assert main(["synthesize", "Hello there. You?", *words, *options, "-o", str(output), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    ((path, loading),) = asked
    assert (path, loading["version"]) == ("somewhere", "v2")
    assert loading["paths"] == {"t2s": None, "sovits": "mine.pth"}
    cloner = VoiceCloner(models)
    cloner.set_reference_audio(reference)
    speech = cloner.synthesize("Hello there. You?", SpeechOptions(seed=3, max_tokens=20, pause_s=0.1))
    samples, rate = soundfile.read(output)
    assert rate == told["sample_rate"] == 32000
    np.testing.assert_allclose(samples, np.clip(speech.samples, -1, 1), atol=1e-4)
    assert [segment["text"] for segment in told["segments"]] == [segment.text for segment in speech.segments]


def test_exact_text_and_voices_of_a_library(asked, reference, tmp_path, capsys):
    library = ["--voices-dir", str(tmp_path / "voices")]
    assert main(["voices", "add", "me", "--models", "m", "--reference", str(reference), *library]) == 0
    assert main(["voices", "list", *library, "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])[0]["name"] == "me"
    speak = ["synthesize", "2pm.", "--models", "m", "--voice", "me", *library, "--json", "--max-tokens", "12"]
    found = []
    for exact in ([], ["--exact-text"]):
        assert main([*speak, *exact, "--language", "en", "-o", str(tmp_path / "a.wav")]) == 0
        found.append(json.loads(capsys.readouterr().out)["segments"][0]["normalized"].strip())
    assert found == ["two P M.", "twopm."]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["synthesize", "a"], "no models were named"),
        (["synthesize", "a", "--models", "m"], "whose voice"),
        (["synthesize", "a", "--models", "m", "--voice", "b", "--reference", "c"], "--voice is all"),
        (["synthesize", "a", "--speed", "99"], "speed"),
        (["synthesize", "a", "--output", "a.txt"], ".wav"),
        (["voices", "add", "b", "--voice", "c"], "--reference"),
    ],
)
def test_what_is_missing_or_wrong_is_said(asked, words, message, capsys):
    assert main(words) == 1
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.out == ""
