"""Speed of each stage at the released sizes, on random weights: seconds for a second of speech (RTF)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_core import backend
from mlx_core.bench import time_rounds
from mlx_core.errors import InputError
from mlx_core.models import preserved_random_state

from .audio import MEL_BINS
from .cloning import VoiceCloner
from .models import Models
from .networks import (
    SAMPLE_RATE,
    T2S,
    ChineseRoberta,
    ChineseRobertaConfig,
    CNHubert,
    CNHubertConfig,
    ERes2NetV2,
    ERes2NetV2Config,
    Sentence,
    SoVITSV3,
    T2SConfig,
)
from .networks.base import CODES
from .networks.released_sizes import randomised, released_sovits, released_vocoder
from .networks.sovits import SPEAKER_WIDTH
from .networks.t2s import BERT_WIDTH
from .synthesis import Guard, Sampling, decode
from .voices import Voice, fingerprint

REFERENCE_S = 6.0
SPEECH_S = 5.0
SENTENCE_S = 2.0
_PHONES_PER_S = 10
_CHARACTERS_PER_S = 5
_FRONT = ("hubert", "bert", "voice", "t2s")
STAGES = (*_FRONT, "speaker", "sovits", "features", "flow", "vocoder", "first")


@dataclass(frozen=True)
class Timing:
    """One stage's median time and fastest, and the seconds of audio that it is about."""

    stage: str
    audio_s: float
    seconds: float
    fastest_s: float

    @property
    def rtf(self) -> float:
        return self.seconds / self.audio_s

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "rtf": self.rtf}


def stages_of(version: str) -> tuple[str, ...]:
    """The stages of a version: v3 and v4 have a flow and a vocoder apart, v2Pro a speaker net. "first" is the first
    packet of a stream: a sentence of 2 s, from its text on.
    """
    if version in ("v3", "v4"):
        return (*_FRONT, "features", "flow", "vocoder", "first")
    return (*_FRONT, "speaker", "sovits", "first") if "Pro" in version else (*_FRONT, "sovits", "first")


def bench(
    stages: Sequence[str] | None = None,
    *,
    version: str = "v2",
    rounds: int = 3,
    steps: int | None = None,
    on_stage: Callable[[str], None] | None = None,
) -> list[Timing]:
    """Time stages, one round more than `rounds`, of which the first doesn't count.

    stages: None for all of the version. steps: of the flow, None for the version's own; the time grows with them.
    Raises InputError for an unknown stage, and for no rounds.
    """
    stages = stages_of(version) if stages is None else stages
    if unknown := [stage for stage in stages if stage not in STAGES]:
        raise InputError(f"stages are {', '.join(STAGES)}; found {', '.join(unknown)}.")
    timings = []
    for stage in stages:
        if on_stage is not None:
            on_stage(stage)
        with preserved_random_state():
            audio_s, run = _stage(stage, version, steps)
        times = time_rounds(run, rounds)
        timings.append(Timing(stage, audio_s, times.median_s, times.fastest_s))
        mx.clear_cache()
    return timings


def hubert_input() -> np.ndarray:
    """Samples of a reference, `[1, S]` float32."""
    return 0.1 * np.random.default_rng(0).standard_normal((1, int(REFERENCE_S * 16000))).astype(np.float32)


def bert_input() -> np.ndarray:
    """Characters of a sentence, `[1, T]` int32."""
    return np.random.default_rng(0).integers(1, 21128, (1, int(SPEECH_S * _CHARACTERS_PER_S) + 2)).astype(np.int32)


def _stage(stage: str, version: str, steps: int | None) -> tuple[float, Callable[[], Any]]:
    """The seconds of audio that a stage is about, and the stage."""
    rng = np.random.default_rng(0)
    if stage == "hubert":
        hubert, samples = randomised(CNHubert(CNHubertConfig())), mx.array(hubert_input())
        return REFERENCE_S, lambda: mx.eval(hubert(samples))
    if stage == "bert":
        bert, tokens = randomised(ChineseRoberta(ChineseRobertaConfig())), mx.array(bert_input())
        return SPEECH_S, lambda: mx.eval(bert(tokens))
    if stage == "speaker":
        speaker = randomised(ERes2NetV2(ERes2NetV2Config()))
        fbank = mx.array(rng.standard_normal((int(REFERENCE_S * 100), MEL_BINS)).astype(np.float32))
        return REFERENCE_S, lambda: mx.eval(speaker(fbank))
    if stage == "t2s":
        t2s = randomised(T2S(T2SConfig()))
        phones = rng.integers(0, 732, int((REFERENCE_S + SPEECH_S) * _PHONES_PER_S))
        sentence = Sentence(
            phones,
            mx.array(rng.standard_normal((phones.size, BERT_WIDTH)).astype(np.float32)),
            rng.integers(0, CODES, int(REFERENCE_S * 25)),
        )
        sampling = Sampling(max_tokens=int(SPEECH_S * 25))

        def speak() -> None:
            drawn = sum(len(step.tokens) for step in decode(t2s, [sentence], sampling, [0]))
            if drawn != sampling.max_tokens:
                raise InputError(f"the random model ended after {drawn} tokens; its timing means nothing.")

        t2s.ar_predict_layer.weight[t2s.config.EOS] = 0.0
        return SPEECH_S, speak
    spectrogram = mx.array(rng.random((int(REFERENCE_S * 50), 1025)).astype(np.float32))
    codes = rng.integers(0, CODES, int(SPEECH_S * 25))
    phones = rng.integers(0, 322, int(SPEECH_S * _PHONES_PER_S))
    if stage == "vocoder":
        return _vocoder_stage(version, rng)
    if stage == "first":
        return _first_packet(version, spectrogram, steps)
    sovits = randomised(released_sovits(version))
    if isinstance(sovits, SoVITSV3):
        return _flow_stage(stage, sovits, spectrogram, codes, phones, steps)
    speakers = [mx.array(rng.standard_normal(SPEAKER_WIDTH).astype(np.float32))] if sovits.has_speaker else None
    if stage == "voice":
        return REFERENCE_S, lambda: mx.eval(sovits.voice([spectrogram], speakers))
    if stage != "sovits":
        raise InputError(f"{version} has no stage {stage!r}; v3 and v4 have.")
    voice = sovits.voice([spectrogram], speakers)
    mx.eval(voice)
    return codes.size * 2 * 640 / SAMPLE_RATE, lambda: mx.eval(sovits.decode(codes, phones, voice))


def _first_packet(version: str, spectrogram: mx.array, steps: int | None) -> tuple[float, Callable[[], Any]]:
    rng = np.random.default_rng(2)
    sovits = randomised(released_sovits(version))
    t2s = randomised(T2S(T2SConfig(phoneme_vocab_size=512 if version == "v1" else 732)))
    hubert = randomised(CNHubert(CNHubertConfig(num_hidden_layers=1)))  # which a voice that is there doesn't need
    tokens, phones = mx.array(rng.integers(0, CODES, int(REFERENCE_S * 25))), rng.integers(0, 322, 60)
    prompt = vocoder = speaker = None
    if isinstance(sovits, SoVITSV3):
        timbre, vocoder = sovits.voice([spectrogram]), randomised(released_vocoder(version))
        samples = 0.1 * rng.standard_normal(int(REFERENCE_S * sovits.mel_config.sample_rate)).astype(np.float32)
        prompt = sovits.prompt(tokens, phones, timbre, sovits.mel(samples))
    else:
        speakers = [mx.array(rng.standard_normal(SPEAKER_WIDTH).astype(np.float32))] if sovits.has_speaker else None
        timbre = sovits.voice([spectrogram], speakers)
        speaker = ERes2NetV2(ERes2NetV2Config()) if sovits.has_speaker else None
    models = Models(t2s, sovits, hubert, speaker=speaker, vocoder=vocoder)
    cloner = VoiceCloner(models, guard=Guard(retries=0))
    said = tuple(int(phone) for phone in phones)
    cloner.voice = Voice(timbre, tokens, said, None, prompt, "", "en", version, fingerprint(models))
    t2s.ar_predict_layer.weight[t2s.config.EOS] = 0.0

    def first() -> None:
        options: dict[str, Any] = {"max_tokens": int(SENTENCE_S * 25), "steps": steps if prompt else None}
        next(cloner.stream("Hello there my friend.", language="en", split="cut0", seed=0, **options))

    return SENTENCE_S, first


def _vocoder_stage(version: str, rng: np.random.Generator) -> tuple[float, Callable[[], Any]]:
    if version not in ("v3", "v4"):
        raise InputError(f"{version} has no vocoder apart; v3 and v4 have.")
    vocoder = randomised(released_vocoder(version))
    frames = int(SPEECH_S * vocoder.sample_rate / vocoder.config.hop_length_samples)
    mel = mx.array(rng.uniform(-12, 2, (frames, vocoder.config.num_mels)).astype(np.float32))
    return SPEECH_S, lambda: mx.eval(vocoder.speak(mel))


def _flow_stage(
    stage: str, sovits: SoVITSV3, spectrogram: mx.array, codes: np.ndarray, phones: np.ndarray, steps: int | None
) -> tuple[float, Callable[[], Any]]:
    if stage == "voice":
        return REFERENCE_S, lambda: mx.eval(sovits.voice([spectrogram]))
    voice = sovits.voice([spectrogram])
    if stage == "features":
        return SPEECH_S, lambda: mx.eval(sovits.features(codes, phones, voice))
    if stage != "flow":
        raise InputError(f"{sovits.version} has no stage {stage!r}; v1 to v2ProPlus have.")
    rate = sovits.mel_config.sample_rate
    samples = 0.1 * np.random.default_rng(1).standard_normal(int(REFERENCE_S * rate)).astype(np.float32)
    prompt_codes = np.resize(codes, int(REFERENCE_S * 25))
    prompt = sovits.prompt(prompt_codes, phones, voice, sovits.mel(samples))
    features = sovits.features(codes, phones, voice)
    mx.eval(features, prompt.features, prompt.mel)

    def flow() -> None:
        for window in sovits.windows(features, prompt, steps=steps):
            mx.eval(window)

    return SPEECH_S, flow


def lines(timings: Sequence[Timing]) -> Iterator[str]:
    """A table for people."""
    yield f"{backend.current().name}: {backend.current().device_name}"
    yield f"{'stage':10}{'audio s':>10}{'seconds':>10}{'RTF':>10}"
    for timing in timings:
        yield f"{timing.stage:10}{timing.audio_s:10.1f}{timing.seconds:10.3f}{timing.rtf:10.4f}"
