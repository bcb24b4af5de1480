"""A voice out of a few seconds of a recording: text in, speech out.

    text -> phones -> semantic tokens (after the reference's) -> SoVITS (in the reference's voice) -> samples

`VoiceCloner(models_dir)` finds the networks (see `models`), `set_reference_audio` prepares a voice once, `synthesize`
and `stream` speak.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mlx_core.audio import load_wav, resample
from mlx_core.audio.reference import HUBERT_RATE, HUBERT_SILENCE_SAMPLES
from mlx_core.audio.samples import quietest_place
from mlx_core.errors import AudioError, InputError

from .base import check_speed
from .decoding import Sampling
from .features import reference_spectrogram, speaker_fbank
from .generation import Attempt, Guard, Semantics, Verdict, generate
from .models import Models, load_models
from .sovits import SAMPLE_RATE, SoVITS
from .sovits_v3 import SoVITSV3
from .t2s import Sentence
from .text import Utterance
from .voices import Voice, VoiceLibrary, fingerprint

Samples = npt.NDArray[np.float32]
OnProgress = Callable[[int, int], None]
"""Called with the sentences that are done, and how many there are."""

LEAST_SECONDS, MOST_SECONDS = 3.0, 10.0
PAUSE_SECONDS = 0.3
BATCH_SENTENCES = 8
PUNCTUATION = "!?…,.-"
"""Phones that are silent."""
_QUIET_MS = 100
_ENDS = "。．.！!？?…,，、;；:：~-"


@dataclass(frozen=True)
class SpeechSegment:
    """A sentence of what was spoken."""

    text: str
    normalized: str
    """As it was read."""
    start_s: float
    end_s: float
    verdict: Verdict
    """"ok", or what the guard found wrong even after its last retry."""
    attempts: tuple[Attempt, ...]
    """Every try at the sentence, with its seed."""


@dataclass(frozen=True, eq=False)
class Speech:
    """What was spoken."""

    samples: Samples
    """`[S]` float32 in [-1, 1]."""
    sample_rate: int
    segments: list[SpeechSegment]
    seed: int
    """With it the same speech comes again."""

    @property
    def duration_s(self) -> float:
        """How long it lasts."""
        return len(self.samples) / self.sample_rate


@dataclass(frozen=True, eq=False)
class SpeechChunk:
    """The next samples of a speech."""

    samples: Samples
    sample_rate: int
    segment: SpeechSegment | None
    """The sentence that ends with this chunk, None inside of one."""
    elapsed_s: float
    """Since the speech was asked for: the first chunk's is the first packet's latency."""


@dataclass
class _Sentence:
    """An utterance and its random seed."""

    utterance: Utterance
    seed: int


class VoiceCloner:
    """GPT-SoVITS, v1 to v4.

    models_dir: a folder that holds the networks, named as `models` says; or the networks. dtype: what to compute in,
    None for what the backend wants. paths: networks that are elsewhere, such as `sovits="my-voice.pth"`. Raises what
    loading raises.
    """

    def __init__(
        self,
        models_dir: str | Path | Models,
        *,
        dtype: mx.Dtype | str | None = None,
        guard: Guard | None = None,
        **paths: str | Path | None,
    ) -> None:
        if isinstance(models_dir, Models):
            self.models = models_dir
        else:
            self.models = load_models(models_dir, dtype=dtype, paths=paths)
        self.guard = Guard() if guard is None else guard
        self.voice: Voice | None = None

    @property
    def sample_rate(self) -> int:
        """Hz, of what is spoken."""
        return self.models.sample_rate

    def set_reference_audio(
        self,
        audio: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        prompt_text: str | None = None,
        prompt_language: str | None = None,
        *,
        trim: bool = False,
    ) -> Voice:
        """Speak in the voice of a recording from now on; returns the voice, which `VoiceLibrary` can keep.

        audio: a sound file of 3 to 10 s, or several: the first says how to speak, and all what the voice sounds like.
        prompt_text: what the first one says; None for reference-free speech, which v3 and v4 can't do. prompt_language:
        its language, None to find out. trim: take what is quietest around 10 s of a longer recording. Raises AudioError
        for recordings that are too short or long, InputError.
        """
        self.voice = self.prepare_voice(audio, prompt_text, prompt_language, trim=trim)
        return self.voice

    def use_voice(self, voice: Voice | str, library: VoiceLibrary | str | Path | None = None) -> Voice:
        """Speak in a prepared voice, or in one of a library's. Raises InputError for a voice of other models."""
        if isinstance(voice, str):
            if library is None:
                raise InputError(f"the voice {voice!r} is looked for in a library. Say which one.")
            shelf = library if isinstance(library, VoiceLibrary) else VoiceLibrary(library)
            voice = shelf.load(voice)
        voice.check(self.models)
        self.voice = voice
        return voice

    def prepare_voice(
        self,
        audio: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        prompt_text: str | None = None,
        prompt_language: str | None = None,
        *,
        trim: bool = False,
    ) -> Voice:
        """A voice; the arguments are those of `set_reference_audio`."""
        files = [audio] if isinstance(audio, (str, os.PathLike)) else list(audio)
        if not files:
            raise InputError("a voice needs one recording or more; got none.")
        sovits = self.models.sovits
        text = None if prompt_text is None or not prompt_text.strip() else prompt_text.strip()
        if text is None and isinstance(sovits, SoVITSV3):
            raise InputError(
                f"{sovits.version} goes on from its reference, and must know what that says. Give prompt_text."
            )
        recordings = [
            load_reference(file, trim=trim, said=text is not None and at == 0) for at, file in enumerate(files)
        ]
        samples, rate = recordings[0]
        spectrograms = [reference_spectrogram(_at(*recording, SAMPLE_RATE)) for recording in recordings]
        timbre: mx.array
        if isinstance(sovits, SoVITS):
            speakers = None
            if self.models.speaker is not None and sovits.has_speaker:
                fbanks = [speaker_fbank(_at(*recording, HUBERT_RATE)) for recording in recordings]
                speakers = [self.models.speaker(fbank)[0] for fbank in fbanks]
            timbre = sovits.voice(spectrograms, speakers)
        else:
            timbre = sovits.voice(spectrograms)
        tokens, phones = mx.zeros((0,), mx.int32), tuple[int, ...]()
        bert, prompt = None, None
        if text is not None:
            # what isn't ended goes on into the text that is to be spoken
            ended = text if text[-1] in _ENDS else text + "."
            said = self.models.text.utterance(ended, prompt_language or "auto")
            if all(phone in PUNCTUATION for phone in said.phones):
                raise InputError(f"there is nothing to speak in prompt_text {text!r:.60}. Leave it out if that is so.")
            phones, bert = said.ids, self.models.bert_features(said)
            heard = np.pad(_at(samples, rate, HUBERT_RATE), (0, HUBERT_SILENCE_SAMPLES))
            tokens = sovits.encode(self.models.hubert(mx.array(heard)))
            if isinstance(sovits, SoVITSV3):
                mel = sovits.mel(_at(samples, rate, sovits.mel_config.sample_rate))
                prompt = sovits.prompt(tokens, list(phones), timbre, mel)
        made = [
            timbre,
            tokens,
            *([] if bert is None else [bert]),
            *([] if prompt is None else [prompt.features, prompt.mel]),
        ]
        mx.eval(made)  # now, and not with the first sentence
        return Voice(
            timbre, tokens, phones, bert, prompt, text, prompt_language, self.models.version, fingerprint(self.models)
        )

    def synthesize(
        self,
        text: str,
        *,
        language: str = "auto",
        speed: float = 1.0,
        top_k: int = 15,
        top_p: float = 1.0,
        temperature: float = 1.0,
        repetition_penalty: float = 1.35,
        seed: int | None = None,
        split: str = "cut5",
        pause_s: float = PAUSE_SECONDS,
        steps: int | None = None,
        max_tokens: int = 1500,
        on_progress: OnProgress | None = None,
    ) -> Speech:
        """Speak a text in the voice that was set.

        text: any text, with the marks that `gpt_sovits_mlx.text.markup` describes. language: "auto", "zh", "en" ...
        speed: how much faster than the voice would. top_k to repetition_penalty: of semantic tokens, see `Sampling`.
        seed: the same one gives the same speech; None for a fresh one. split: how sentences are cut, cut0 to cut5.
        pause_s: silence between sentences. steps: of v3's and v4's solver. max_tokens: of a sentence, 25 a second.
        Raises InputError.
        """
        chunks: list[Samples] = []
        segments: list[SpeechSegment] = []
        seed = _fresh() if seed is None else seed
        sampling = Sampling(
            top_k=top_k,
            top_p=top_p,
            temperature=temperature,
            repetition_penalty=repetition_penalty,
            max_tokens=max_tokens,
        )
        for chunk in self._speak(
            text, language, speed, sampling, seed, split, pause_s, steps, BATCH_SENTENCES, on_progress
        ):
            chunks.append(chunk.samples)
            if chunk.segment is not None:
                segments.append(chunk.segment)
        return Speech(np.concatenate(chunks), self.sample_rate, segments, seed)

    def stream(
        self,
        text: str,
        *,
        language: str = "auto",
        speed: float = 1.0,
        top_k: int = 15,
        top_p: float = 1.0,
        temperature: float = 1.0,
        repetition_penalty: float = 1.35,
        seed: int | None = None,
        split: str = "cut5",
        pause_s: float = PAUSE_SECONDS,
        steps: int | None = None,
        max_tokens: int = 1500,
        on_progress: OnProgress | None = None,
    ) -> Iterator[SpeechChunk]:
        """The same speech as `synthesize`'s, chunk by chunk as it is made: nothing comes twice, and nothing is blended.

        A sentence's semantic tokens are drawn before its first chunk, so that the sound of its beginning knows its end,
        as it does in a whole synthesis; `split` says how long one is. Raises InputError, before the first chunk.
        """
        sampling = Sampling(
            top_k=top_k,
            top_p=top_p,
            temperature=temperature,
            repetition_penalty=repetition_penalty,
            max_tokens=max_tokens,
        )
        seed = _fresh() if seed is None else seed
        return self._speak(text, language, speed, sampling, seed, split, pause_s, steps, 1, on_progress)

    def _speak(
        self,
        text: str,
        language: str,
        speed: float,
        sampling: Sampling,
        seed: int,
        split: str,
        pause_s: float,
        steps: int | None,
        batch: int,
        on_progress: OnProgress | None,
    ) -> Iterator[SpeechChunk]:
        """All of a text; sentences are told apart by their seeds, and their tokens drawn `batch` at a time."""
        started = time.perf_counter()
        voice = self._voice()
        if not 0 <= pause_s <= 60:
            raise InputError(f"pause_s must be from 0 to 60 seconds; found {pause_s!r}.")
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
            raise InputError(f"seed must be an integer in [0, 2**63), or None for a fresh one; found {seed!r}.")
        check_speed(speed)
        if steps is not None and isinstance(self.models.sovits, SoVITS):
            raise InputError(f"steps are of v3's and v4's solver; this is {self.models.version}. Leave them out.")
        utterances = self.models.text(text, language, split=split)
        tail = [_sentence_seed(seed, at) for at in range(len(utterances))]
        sentences = [_Sentence(*pair) for pair in zip(utterances, tail, strict=True)]
        return self._chunks(sentences, voice, speed, sampling, pause_s, steps, batch, on_progress, started)

    def _chunks(
        self,
        sentences: list[_Sentence],
        voice: Voice,
        speed: float,
        sampling: Sampling,
        pause_s: float,
        steps: int | None,
        batch: int,
        on_progress: OnProgress | None,
        started: float,
    ) -> Iterator[SpeechChunk]:
        rate, at = self.sample_rate, 0
        for first in range(0, len(sentences), batch):
            together = sentences[first : first + batch]
            drawn = iter(self._tokens([sentence for sentence in together if sentence.utterance.ids], voice, sampling))
            for number, sentence in enumerate(together, first):
                utterance = sentence.utterance
                last = number + 1 == len(sentences)
                silence = utterance.pause_s + (pause_s if utterance.ids and not last else 0.0)
                begun, said = at, next(drawn) if utterance.ids else None
                pieces = self._sound(said.tokens, utterance, voice, speed, sentence.seed, steps) if said else iter(())
                held: Samples | None = None
                for piece in pieces:
                    if held is not None:
                        at += len(held)
                        yield SpeechChunk(held, rate, None, time.perf_counter() - started)
                    held = piece
                held = np.zeros(0, np.float32) if held is None else held
                end = at + len(held)
                held = np.concatenate([held, np.zeros(round(silence * rate), np.float32)])
                at += len(held)
                segment = None
                if said is not None:
                    segment = SpeechSegment(
                        utterance.text, utterance.normalized, begun / rate, end / rate, said.verdict, said.attempts
                    )
                yield SpeechChunk(held, rate, segment, time.perf_counter() - started)
                if on_progress is not None:
                    on_progress(number + 1, len(sentences))
            mx.clear_cache()  # sentences differ in length: what was freed would pile up

    def _tokens(self, sentences: list[_Sentence], voice: Voice, sampling: Sampling) -> list[Semantics]:
        if not sentences:
            return []
        inputs = [self._input(sentence.utterance, voice) for sentence in sentences]
        seeds = [sentence.seed for sentence in sentences]
        return generate(self.models.t2s, inputs, sampling, seed=seeds, guard=self.guard)

    def _input(self, utterance: Utterance, voice: Voice) -> Sentence:
        """A sentence after what the reference says."""
        features = self.models.bert_features(utterance)
        bert = None
        if features is not None or voice.bert is not None:
            width = (features if features is not None else voice.bert).shape[1]  # type: ignore[union-attr] # one is there
            before = mx.zeros((len(voice.phones), width)) if voice.bert is None else voice.bert.astype(mx.float32)
            after = mx.zeros((len(utterance.ids), width)) if features is None else features
            bert = mx.concatenate([before, after])
        return Sentence([*voice.phones, *utterance.ids], bert, voice.tokens, target_phones=len(utterance.ids))

    def _sound(
        self, tokens: Sequence[int], utterance: Utterance, voice: Voice, speed: float, seed: int, steps: int | None
    ) -> Iterator[Samples]:
        if not tokens:  # the first token that was drawn ended the sentence
            return
        sovits, phones = self.models.sovits, list(utterance.ids)
        if isinstance(sovits, SoVITS):
            latent = sovits.latent(list(tokens), phones, voice.timbre)
            chunks = sovits.speak_chunks(latent, voice.timbre, speed=speed, seed=seed)
        else:
            if voice.prompt is None or self.models.vocoder is None:
                raise InputError(f"a voice of {sovits.version} needs a prompt. Make it again with prompt_text.")
            features = sovits.features(list(tokens), phones, voice.timbre, speed=speed)
            chunks = self.models.vocoder.stream(sovits.windows(features, voice.prompt, steps=steps, seed=seed))
        for chunk in chunks:
            yield np.array(chunk, dtype=np.float32)

    def _voice(self) -> Voice:
        if self.voice is None:
            raise InputError("no voice was set. Call set_reference_audio, or use_voice, first.")
        return self.voice


def load_reference(path: str | os.PathLike[str], *, trim: bool = False, said: bool = False) -> tuple[Samples, int]:
    """The samples `[S]` of a reference and their rate. Raises AudioError unless it lasts 3 to 10 s.

    trim: cut a longer one at its quietest place between 7 and 10 s; not where it is known what the whole of it says.
    """
    samples, rate = load_wav(path)
    seconds = len(samples) / rate
    if seconds < LEAST_SECONDS:
        raise AudioError(
            f"{path} lasts {seconds:.1f} s; a reference must last {LEAST_SECONDS:g} to {MOST_SECONDS:g} s, since a voice can't "
            "be told from less. Give a longer recording."
        )
    if seconds <= MOST_SECONDS:
        return samples, rate
    if not trim or said:
        why = (
            "what is left of it would no longer say prompt_text" if trim else "the models have never heard longer ones"
        )
        raise AudioError(
            f"{path} lasts {seconds:.1f} s; a reference must last {LEAST_SECONDS:g} to {MOST_SECONDS:g} s: {why}. Cut it"
            + ("." if trim else ", or ask for it to be trimmed (trim=True, --trim).")
        )
    window = max(1, rate * _QUIET_MS // 1000)
    first, last = int(0.7 * MOST_SECONDS * rate), int(MOST_SECONDS * rate)
    return samples[: first + quietest_place(samples[first:last], window)], rate


def _at(samples: Samples, rate: int, wanted: int) -> Samples:
    return samples if rate == wanted else resample(samples, rate, wanted)


def _sentence_seed(seed: int, number: int) -> int:
    """Far apart, so that no retry of a sentence is another one's first try."""
    return (seed + 1_000_003 * number) % 2**63


def _fresh() -> int:
    return secrets.randbits(32)
