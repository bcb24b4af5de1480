"""A voice out of a few seconds of a recording: text in, speech out.

    text -> phones -> semantic tokens (after the reference's) -> SoVITS (in the reference's voice) -> samples

`VoiceCloner(models)` finds the networks, `set_reference_audio` prepares a voice once, `synthesize` and `stream` speak.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_core.errors import InputError

from .audio import Samples, hubert_samples, load_reference
from .models import Models, load_models
from .networks import Sentence
from .options import SpeechOptions
from .synthesis import Attempt, Guard, Semantics, Verdict, generate
from .text import TextFrontend, Utterance
from .text.phones import PUNCTUATION
from .voices import Voice, VoiceLibrary, fingerprint

OnProgress = Callable[[int, int], None]
"""Called with the sentences that are done, and how many there are."""

BATCH_SENTENCES = 8


@dataclass(frozen=True)
class SpeechSegment:
    """A spoken sentence."""

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
    """A spoken text."""

    samples: Samples
    """`[S]` float32 in [-1, 1]."""
    sample_rate: int
    segments: list[SpeechSegment]
    seed: int
    """With it the same speech comes again."""

    @property
    def duration_s(self) -> float:
        """Its length in seconds."""
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


class VoiceCloner:
    """GPT-SoVITS, v1 to v4.

    models: a folder that holds the networks, named as `checkpoints.locations` lists; a hub id; or the networks.
    version: take the pretrained networks of this version, where the folder holds several. dtype: the type to compute
    in, None for what the backend wants. guard: what counts as a failed sentence. exact_text: read text as the official
    front end does, its defects included, and without markup. paths: networks that are elsewhere, such as
    `sovits="my-voice.pth"`: a path, a path inside the folder, or a hub id. Raises the errors of `load_models`.
    """

    def __init__(
        self,
        models: str | Path | Models,
        *,
        version: str | None = None,
        dtype: mx.Dtype | str | None = None,
        guard: Guard | None = None,
        exact_text: bool = False,
        **paths: str | Path | None,
    ) -> None:
        if not isinstance(models, Models):
            models = load_models(models, version=version, dtype=dtype, paths=paths)
        self.models = models
        self.frontend = TextFrontend(models.version, exact=exact_text, polyphones=models.polyphones)
        self.guard = Guard() if guard is None else guard
        self.voice: Voice | None = None

    @property
    def sample_rate(self) -> int:
        """Hz, of the speech."""
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
        models, synthesizer = self.models, self.models.synthesizer
        text = (prompt_text or "").strip() or None
        if text is None and synthesizer.needs_prompt:
            raise InputError(
                f"{synthesizer.version} goes on from its reference, and must know what that says. Give prompt_text."
            )
        recordings = [
            load_reference(file, trim=trim, has_text=text is not None and at == 0) for at, file in enumerate(files)
        ]
        timbre = synthesizer.timbre(recordings)
        tokens, phones = mx.zeros((0,), mx.int32), tuple[int, ...]()
        bert = prompt = None
        if text is not None:
            spoken = self.frontend.prompt(text, prompt_language or "auto")
            if all(phone in PUNCTUATION for phone in spoken.phones):
                raise InputError(f"there is nothing to speak in prompt_text {text!r:.60}. Leave it out if that is so.")
            phones, bert = spoken.ids, models.bert_features(spoken)
            tokens = models.sovits.encode(models.hubert(hubert_samples(recordings[0])))
            prompt = synthesizer.prompt(recordings[0], tokens, phones, timbre)
        mel = [] if prompt is None else [prompt.features, prompt.mel]
        mx.eval(timbre, tokens, *mel, *([] if bert is None else [bert]))  # now, and not with the first sentence
        return Voice(timbre, tokens, phones, bert, prompt, text, prompt_language, models.version, fingerprint(models))

    def synthesize(
        self,
        text: str,
        options: SpeechOptions | None = None,
        *,
        on_progress: OnProgress | None = None,
        **settings: Any,
    ) -> Speech:
        """Speak a text in the voice that was set.

        text: any text, with the marks that `gpt_sovits_mlx.text.markup` describes. options: how; settings are fields of
        `SpeechOptions` by name, which replace those of `options`. on_progress: is told each finished sentence. Raises
        InputError.
        """
        options, seed = _merged(options, settings)
        chunks = list(self._speak(text, options, seed, BATCH_SENTENCES, on_progress))
        segments = [chunk.segment for chunk in chunks if chunk.segment is not None]
        samples = np.concatenate([chunk.samples for chunk in chunks])
        return Speech(samples, self.sample_rate, segments, seed)

    def stream(
        self,
        text: str,
        options: SpeechOptions | None = None,
        *,
        on_progress: OnProgress | None = None,
        **settings: Any,
    ) -> Iterator[SpeechChunk]:
        """The same speech as `synthesize`'s, chunk by chunk as it is made: nothing comes twice, and nothing is blended.

        A sentence's semantic tokens are drawn before its first chunk, so that the sound of its beginning knows its end,
        as it does in a whole synthesis; `split` says how long one is. Raises InputError, before the first chunk.
        """
        return self._speak(text, *_merged(options, settings), 1, on_progress)

    def _speak(
        self, text: str, options: SpeechOptions, seed: int, batch: int, on_progress: OnProgress | None
    ) -> Iterator[SpeechChunk]:
        """The chunks of a text, the tokens of `batch` sentences drawn at a time. Raises InputError before the first."""
        started = time.perf_counter()
        if self.voice is None:
            raise InputError("no voice was set. Call set_reference_audio, or use_voice, first.")
        synthesizer = self.models.synthesizer
        if options.steps is not None and not synthesizer.has_steps:
            raise InputError(f"steps are of v3's and v4's solver; this is {synthesizer.version}. Leave them out.")
        utterances = self.frontend(text, options.language, split=options.split)
        seeds = [_sentence_seed(seed, number) for number in range(len(utterances))]
        return self._chunks(utterances, seeds, self.voice, options, batch, on_progress, started)

    def _chunks(
        self,
        utterances: Sequence[Utterance],
        seeds: Sequence[int],
        voice: Voice,
        options: SpeechOptions,
        batch: int,
        on_progress: OnProgress | None,
        started: float,
    ) -> Iterator[SpeechChunk]:
        rate, at = self.sample_rate, 0
        for first in range(0, len(utterances), batch):
            numbers = range(first, min(first + batch, len(utterances)))
            drawn = self._tokens({number: utterances[number] for number in numbers}, voice, options, seeds)
            for number in numbers:
                utterance, semantics = utterances[number], drawn.get(number)
                last = number + 1 == len(utterances)
                silence = utterance.pause_s + (options.pause_s if utterance.ids and not last else 0.0)
                begin = at
                held = np.zeros(0, np.float32)
                for piece in self._samples(semantics, utterance, voice, options, seeds[number]):
                    if held.size:
                        at += len(held)
                        yield SpeechChunk(held, rate, None, time.perf_counter() - started)
                    held = piece
                end = at + len(held)
                held = np.concatenate([held, np.zeros(round(silence * rate), np.float32)])
                at += len(held)
                segment = None
                if semantics is not None:
                    segment = SpeechSegment(
                        utterance.text,
                        utterance.normalized,
                        begin / rate,
                        end / rate,
                        semantics.verdict,
                        semantics.attempts,
                    )
                yield SpeechChunk(held, rate, segment, time.perf_counter() - started)
                if on_progress is not None:
                    on_progress(number + 1, len(utterances))
            mx.clear_cache()  # sentences differ in length: what was freed would pile up

    def _tokens(
        self, utterances: dict[int, Utterance], voice: Voice, options: SpeechOptions, seeds: Sequence[int]
    ) -> dict[int, Semantics]:
        """The semantic tokens of sentences by their numbers, drawn together; breaks have none."""
        spoken = {number: utterance for number, utterance in utterances.items() if utterance.ids}
        if not spoken:
            return {}
        sentences = [self._sentence(utterance, voice) for utterance in spoken.values()]
        own_seeds = [seeds[number] for number in spoken]
        drawn = generate(self.models.t2s, sentences, options, seed=own_seeds, guard=self.guard)
        return dict(zip(spoken, drawn, strict=True))

    def _sentence(self, utterance: Utterance, voice: Voice) -> Sentence:
        """A sentence after the reference's text."""
        features = self.models.bert_features(utterance)
        bert = None
        if features is not None or voice.bert is not None:
            width = (features if features is not None else voice.bert).shape[1]  # type: ignore[union-attr] # one is there
            before = mx.zeros((len(voice.phones), width)) if voice.bert is None else voice.bert.astype(mx.float32)
            after = mx.zeros((len(utterance.ids), width)) if features is None else features
            bert = mx.concatenate([before, after])
        return Sentence([*voice.phones, *utterance.ids], bert, voice.tokens, target_phones=len(utterance.ids))

    def _samples(
        self, semantics: Semantics | None, utterance: Utterance, voice: Voice, options: SpeechOptions, seed: int
    ) -> Iterator[Samples]:
        """The samples of a sentence in chunks; none where the first token that was drawn ended it."""
        if semantics is None or not semantics.tokens:
            return
        for chunk in self.models.synthesizer.speak(
            semantics.tokens,
            utterance.ids,
            voice.timbre,
            voice.prompt,
            speed=options.speed,
            steps=options.steps,
            seed=seed,
        ):
            yield np.array(chunk, dtype=np.float32)


def _merged(options: SpeechOptions | None, settings: dict[str, Any]) -> tuple[SpeechOptions, int]:
    """The options with the settings in them, and their seed, a fresh one where they have none."""
    options = replace(options or SpeechOptions(), **settings)
    return options, secrets.randbits(32) if options.seed is None else options.seed


def _sentence_seed(seed: int, number: int) -> int:
    """The seed of a sentence, far from the others', so that no retry of one is another one's first try."""
    return (seed + 1_000_003 * number) % 2**63
