"""One interface to SoVITS of every version: a voice out of recordings, and samples out of semantic tokens.

v1 to v2ProPlus decode a latent by a vocoder of their own; v3 and v4 make a mel spectrogram that goes on from the
reference's, of which a vocoder beside them makes samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import mlx.core as mx

from mlx_core.audio import HUBERT_RATE
from mlx_core.errors import InputError, MissingCheckpointError

from ..audio import Recording, reference_spectrogram, speaker_fbank
from ..checkpoints import NAMES
from ..networks import SAMPLE_RATE, BigVGAN, ERes2NetV2, HiFiGAN, MelVocoder, Prompt, SoVITS, SoVITSV3

_VOCODERS: dict[str, type[MelVocoder]] = {"v3": BigVGAN, "v4": HiFiGAN}


class Synthesizer(Protocol):
    """A SoVITS with the networks that it needs beside it."""

    @property
    def version(self) -> str:
        """v1, v2, v2Pro, v2ProPlus, v3 or v4."""

    @property
    def sample_rate(self) -> int:
        """Hz, of the samples."""

    @property
    def needs_prompt(self) -> bool:
        """Whether speech goes on from the reference's own, of which the text must be known then."""

    @property
    def has_steps(self) -> bool:
        """Whether there is a solver, whose steps can be chosen."""

    def timbre(self, recordings: Sequence[Recording]) -> mx.array:
        """The voice of one recording or more, `[1, 1, gin]`: the mean of theirs."""

    def prompt(self, recording: Recording, tokens: mx.array, phones: Sequence[int], timbre: mx.array) -> Prompt | None:
        """The reference as speech goes on from it, of its tokens `[P]` and phones; None where speech doesn't."""

    def speak(
        self,
        tokens: Sequence[int],
        phones: Sequence[int],
        timbre: mx.array,
        prompt: Prompt | None,
        *,
        speed: float = 1.0,
        steps: int | None = None,
        seed: int = 0,
    ) -> Iterator[mx.array]:
        """The samples of one sentence in (-1, 1), in chunks `[S]` float32, each computed before the next is begun.

        tokens: semantic tokens. steps: of the solver, None for the version's own number. Raises InputError for ids that
        aren't the model's, and for a prompt that is missing.
        """


def make_synthesizer(
    sovits: SoVITS | SoVITSV3, *, speaker: ERes2NetV2 | None = None, vocoder: MelVocoder | None = None
) -> Synthesizer:
    """The synthesiser for a SoVITS. Raises MissingCheckpointError where a network that its version needs is missing."""
    if isinstance(sovits, SoVITSV3):
        return FlowSynthesizer(sovits, vocoder)
    return LatentSynthesizer(sovits, speaker)


class LatentSynthesizer:
    """v1, v2, v2Pro and v2ProPlus; the last two take a speaker embedding beside the spectrogram."""

    needs_prompt = False
    has_steps = False
    sample_rate = SAMPLE_RATE

    def __init__(self, sovits: SoVITS, speaker: ERes2NetV2 | None) -> None:
        if sovits.has_speaker and speaker is None:
            raise MissingCheckpointError(
                f"SoVITS {sovits.version} takes a voice from the speaker net too: expected one of "
                f"{', '.join(NAMES['speaker'])}."
            )
        self._sovits = sovits
        self._speaker = speaker if sovits.has_speaker else None

    @property
    def version(self) -> str:
        """v1, v2, v2Pro or v2ProPlus."""
        return self._sovits.version

    def timbre(self, recordings: Sequence[Recording]) -> mx.array:
        """The mean of the recordings' voices, `[1, 1, gin]`."""
        speakers = None
        if self._speaker is not None:
            speakers = [self._speaker(speaker_fbank(recording.at(HUBERT_RATE)))[0] for recording in recordings]
        return self._sovits.voice(_spectrograms(recordings), speakers)

    def prompt(self, recording: Recording, tokens: mx.array, phones: Sequence[int], timbre: mx.array) -> None:
        """None: speech doesn't go on from the recording."""

    def speak(
        self,
        tokens: Sequence[int],
        phones: Sequence[int],
        timbre: mx.array,
        prompt: Prompt | None,
        *,
        speed: float = 1.0,
        steps: int | None = None,
        seed: int = 0,
    ) -> Iterator[mx.array]:
        """Chunks of the samples; there is neither a prompt nor a solver."""
        latent = self._sovits.latent(list(tokens), list(phones), timbre)
        return self._sovits.speak_chunks(latent, timbre, speed=speed, seed=seed)


class FlowSynthesizer:
    """v3 with BigVGAN, v4 with HiFi-GAN."""

    needs_prompt = True
    has_steps = True

    def __init__(self, sovits: SoVITSV3, vocoder: MelVocoder | None) -> None:
        wanted = _VOCODERS[sovits.version]
        if not isinstance(vocoder, wanted):
            raise MissingCheckpointError(
                f"SoVITS {sovits.version} speaks through {wanted.__name__}: expected one of {', '.join(NAMES['vocoder'])}."
            )
        self._sovits, self._vocoder = sovits, vocoder

    @property
    def version(self) -> str:
        """v3 or v4."""
        return self._sovits.version

    @property
    def sample_rate(self) -> int:
        """The vocoder's, in Hz."""
        return self._vocoder.sample_rate

    def timbre(self, recordings: Sequence[Recording]) -> mx.array:
        """The mean of the recordings' voices, `[1, 1, gin]`."""
        return self._sovits.voice(_spectrograms(recordings))

    def prompt(self, recording: Recording, tokens: mx.array, phones: Sequence[int], timbre: mx.array) -> Prompt:
        """The recording's features and mel spectrogram."""
        mel = self._sovits.mel(recording.at(self._sovits.mel_config.sample_rate))
        return self._sovits.prompt(tokens, list(phones), timbre, mel)

    def speak(
        self,
        tokens: Sequence[int],
        phones: Sequence[int],
        timbre: mx.array,
        prompt: Prompt | None,
        *,
        speed: float = 1.0,
        steps: int | None = None,
        seed: int = 0,
    ) -> Iterator[mx.array]:
        """Chunks of the samples, as the flow's windows are there."""
        if prompt is None:
            raise InputError(f"a voice of {self.version} needs a prompt. Make it again with prompt_text.")
        features = self._sovits.features(list(tokens), list(phones), timbre, speed=speed)
        return self._vocoder.stream(self._sovits.windows(features, prompt, steps=steps, seed=seed))


def _spectrograms(recordings: Sequence[Recording]) -> list[mx.array]:
    return [reference_spectrogram(recording.at(SAMPLE_RATE)) for recording in recordings]
