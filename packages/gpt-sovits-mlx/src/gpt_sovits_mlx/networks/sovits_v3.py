"""SoVITS v3 and v4: from semantic tokens and phones to a mel spectrogram that goes on from a reference's.

    codes -> quantised features -> enc_p (with phones and voice) -> bridge -> wns1 -> flow matching, after the prompt

A vocoder of its own (BigVGAN for v3, HiFi-GAN for v4) makes samples of it. The two versions differ in mel frames (v3:
93.75 a second, v4: 100) and lengths; their networks have the same shapes. Both need the reference's text.

Reference: GPT-SoVITS, `module/models.py` (`SynthesizerTrnV3`), `TTS_infer_pack/TTS.py` (`using_vocoder_synthesis`). `T`
mel frames, `N` semantic tokens of 40 ms, `M` mel bands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import mlx.core as mx
import mlx.nn as nn

from mlx_core import backend
from mlx_core.audio import AudioConfig, compute_mel_spectrogram
from mlx_core.errors import ConfigError, InputError
from mlx_core.models import Array, Conv1d

from ..audio import SOVITS_V3_MEL, SOVITS_V4_MEL
from ..checkpoints import base_name, is_lora, merge_lora, read_released, resolve_network
from .base import FRAMES_PER_CODE, BaseSoVITS, EncoderConfig, check_speed, model_table
from .dit import DiTConfig, FlowMatching
from .flow import WaveNet
from .prior_encoder import MRTE_WIDTH, at_speed
from .vocoder import MEL_CHUNK_FRAMES, MelVocoder, leaky

_WIDTH = 512
_LAYERS = 8
_BRIDGE_SLOPE = 0.01
_MIN_LOG, _MAX_LOG = -12.0, 2.0  # of a mel spectrogram's logarithm; normalised, -1 and 1


@dataclass(frozen=True)
class _Version:
    mel: AudioConfig
    stretch: Fraction
    """Mel frames for each frame of the prior encoder."""
    kept_per_code: float
    """Mel frames for each token, at most; what comes after them is zero."""
    prompt_frames: int
    window_frames: int
    steps: int


_VERSIONS = {
    "v3": _Version(SOVITS_V3_MEL, Fraction(15, 8), 3.875, 468, 934, 32),
    "v4": _Version(SOVITS_V4_MEL, Fraction(2), 4.0, 500, 1000, 8),
}


@dataclass(frozen=True)
class Prompt:
    """A reference, as v3 and v4 go on from it: features `[1, T, 512]`, normalised mel spectrogram `[1, T, M]`."""

    features: mx.array
    mel: mx.array


class MelEncoder(nn.Module):
    """`wns1`."""

    def __init__(self, gin: int) -> None:
        super().__init__()
        self.pre = Conv1d(_WIDTH, _WIDTH, 1)
        self.enc = WaveNet(_WIDTH, gin, layers=_LAYERS)
        self.proj = Conv1d(_WIDTH, _WIDTH, 1)

    def __call__(self, x: mx.array, ge: mx.array) -> mx.array:
        """`[B, T, 512]`, voice `[B, 1, gin] -> [B, T, 512]`."""
        return self.proj(self.enc(self.pre(x), ge))


class SoVITSV3(BaseSoVITS):
    """The network of v3 and v4, up to mel spectrograms."""

    model_type = "gpt-sovits-sovits-v3"
    # linear_mel is for training alone
    unused = re.compile(BaseSoVITS.unused.pattern + r"|linear_mel\.|.*\.(rotary_embed\.|text_embed\.freqs_cis$)")

    def __init__(self, config: EncoderConfig, dit: DiTConfig, symbols: int) -> None:
        """`config.version` is "v3" or "v4"."""
        super().__init__(config, symbols)
        if config.gin_channels != MRTE_WIDTH or dit.text_dim != _WIDTH:
            raise ConfigError(
                f"gin_channels must be {MRTE_WIDTH}, the DiT's text_dim {_WIDTH}; found {config.gin_channels} and "
                f"{dit.text_dim}."
            )
        self.config = config
        self._version, self._mels = _VERSIONS[config.version], dit.mel_dim
        self.bridge = [Conv1d(config.inter_channels, _WIDTH, 1)]
        self.wns1 = MelEncoder(config.gin_channels)
        self.cfm = FlowMatching(dit)

    @classmethod
    def build(cls, config: Mapping[str, Any], weights: Mapping[str, mx.array]) -> Self:
        plain = merge_lora(weights)
        checked, symbols = model_table(EncoderConfig, config, plain)
        if checked.version not in _VERSIONS and checked.version != "v2":
            raise ConfigError(f"version must be one of {', '.join(_VERSIONS)}; found {checked.version!r}.")
        version = checked.version if checked.version in _VERSIONS else "v3"  # the first files don't say
        return cls(replace(checked, version=version), DiTConfig.of(config, plain), symbols)

    def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
        return super().sanitize(merge_lora(weights))

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        base: str | Path | None = None,
        dtype: mx.Dtype | str | None = None,
        keep_packed: bool | None = None,
    ) -> Self:
        """The network in a released `.pth` file, or in a folder that `convert` wrote.

        path: a path or a hub id. base: for a file that holds a LoRA, the file, folder or hub id of the model that it was
        trained on; it is merged into the base, whose other tensors the file's replace. The others, and the errors, are
        `from_state_dict`'s; ConfigError for a LoRA without a base.
        """
        with backend.worker_streams():
            config, weights = cls.read(resolve_network(path))
            if is_lora(weights):
                weights = with_base(weights, path, base)
            return cls.from_state_dict(config, weights, dtype=dtype, keep_packed=keep_packed, consume=True)

    @classmethod
    def read(cls, path: Path) -> tuple[dict[str, Any], dict[str, mx.array]]:
        """Configuration and tensors of a folder or a released file; the file's version is in the configuration."""
        if not path.is_file():
            return super().read(path)
        released = read_released(path)
        return released.full_config, released.weights

    @property
    def version(self) -> str:
        """v3 or v4."""
        return self.config.version

    @property
    def mel_config(self) -> AudioConfig:
        """The mel spectrogram of a reference, and its sample rate."""
        return self._version.mel

    def voice(self, spectrograms: Sequence[Array]) -> mx.array:
        """The voice of one reference or more, `[1, 1, gin]`: the mean of theirs.

        spectrograms: `[T, 1025]` each, by `reference_spectrogram`. Raises InputError for none, or another shape.
        """
        if not spectrograms:
            raise InputError(f"{self.version} takes one reference or more; got none.")
        return mx.mean(mx.stack(self._references(spectrograms)), axis=0)

    def mel(self, samples: Array) -> mx.array:
        """Samples `[S]` in [-1, 1], at `mel_config.sample_rate` -> normalised mel spectrogram `[T, M]`.

        Raises AudioError for too few samples, or some that aren't finite.
        """
        return normalised(compute_mel_spectrogram(samples, self.mel_config).T)

    def features(self, codes: Any, phones: Any, voice: mx.array, *, speed: float = 1.0) -> mx.array:
        """Semantic tokens `[N]` and phones `[S]` of one sentence -> features of its mel frames, `[1, T, 512]`.

        speed: how much faster than the tokens say. Raises InputError for ids that aren't the model's, and for a speed
        out of range.
        """
        check_speed(speed)
        latent = self.latent(codes, phones, voice)
        kept = latent.shape[1] // FRAMES_PER_CODE * self._version.kept_per_code
        kept = int(kept) if speed == 1 else int(kept / speed) + 1
        x = leaky(self.bridge[0](at_speed(latent, speed)), _BRIDGE_SLOPE)
        ratio = self._version.stretch
        T = int(x.shape[1] * ratio)
        nearest = mx.arange(T) * ratio.denominator // ratio.numerator
        x = self.wns1(x[:, nearest[: min(T, kept)]], voice)
        return mx.pad(x, [(0, 0), (0, T - x.shape[1]), (0, 0)])

    def prompt(self, codes: Any, phones: Any, voice: mx.array, mel: Array) -> Prompt:
        """A reference to go on from, once for a voice: its own tokens `[N]` and phones `[S]`, `voice`, and its mel
        spectrogram `[T, M]` by `mel`. Raises InputError as `features`, and for another shape.
        """
        reference = mx.array(mel)
        if reference.ndim != 2 or reference.shape[0] == 0 or reference.shape[1] != self._mels:
            raise InputError(f"mel must be [T, {self._mels}]; found {tuple(reference.shape)}.")
        features = self.features(codes, phones, voice)
        T = min(features.shape[1], reference.shape[0])
        last = slice(max(T - self._version.prompt_frames, 0), T)
        return Prompt(features[:, last], reference[None, last].astype(features.dtype))

    def sample(
        self,
        features: mx.array,
        prompt: Prompt,
        *,
        steps: int | None = None,
        guidance: float = 0.0,
        temperature: float = 1.0,
        noise: Array | None = None,
        seed: int = 0,
    ) -> mx.array:
        """Features `[B, T, 512]` -> normalised mel spectrograms `[B, T, M]` float32 that go on from the prompt.

        steps: of the solver, None for 32 (v3) or 8 (v4). guidance: of classifier-free guidance, 0 for none, which is
        the official choice. noise: `[T or more, M]`, or so for each of B, else drawn from `seed`; it is multiplied by
        temperature. Raises InputError for arguments out of range.
        """
        number = self._version.steps if steps is None else steps
        if not 1 <= number <= 10000 or not guidance >= 0 or not temperature >= 0:
            raise InputError(
                f"steps must be 1 or more, guidance and temperature not negative; found {steps!r}, {guidance!r} and "
                f"{temperature!r}."
            )
        B, T, _ = features.shape
        drawn = self.noise(B, T, noise, seed)
        before = mx.broadcast_to(prompt.features, (B, *prompt.features.shape[1:]))
        return self.cfm.sample(
            mx.concatenate([before, features], axis=1),
            mx.broadcast_to(prompt.mel, (B, *prompt.mel.shape[1:])),
            drawn * temperature,
            steps=number,
            guidance=guidance,
        )

    def noise(self, B: int, T: int, given: Array | None, seed: int) -> mx.array:
        """The noise that `sample` starts from, given or drawn: `[B, T, M]` float32. Raises InputError for another shape."""
        if given is None:
            return mx.random.normal((B, T, self._mels), key=mx.random.key(seed))
        noise = mx.array(given)
        noise = noise[None] if noise.ndim == 2 else noise
        if noise.ndim != 3 or noise.shape[0] != B or noise.shape[1] < T or noise.shape[2] != self._mels:
            raise InputError(f"noise must be [{B}, {T} or more, {self._mels}]; found {tuple(mx.array(given).shape)}.")
        return noise[:, :T].astype(mx.float32)

    def windows(
        self,
        features: mx.array,
        prompt: Prompt,
        *,
        steps: int | None = None,
        guidance: float = 0.0,
        temperature: float = 1.0,
        noise: Array | None = None,
        seed: int = 0,
    ) -> Iterator[mx.array]:
        """The logarithm of the mel spectrogram `[T, M]` of features `[1, T, 512]`, window by window, each of which goes
        on from the end of the one before it; the arguments are `sample`'s.

        A window and its prompt have 934 frames (v3) or 1000 (v4), so memory stays bounded.
        """
        T, length, size = features.shape[1], prompt.features.shape[1], self.window_frames(prompt)
        drawn = self.noise(1, T, noise, seed)[0]
        for start in range(0, T, size):
            part = features[:, start : start + size]
            mel = self.sample(
                part, prompt, steps=steps, guidance=guidance, temperature=temperature, noise=drawn[start : start + size]
            )
            yield denormalised(mel[0])
            prompt = Prompt(part[:, -length:], mel[:, -length:].astype(part.dtype))

    def window_frames(self, prompt: Prompt) -> int:
        """How many frames are made at a time, after this prompt."""
        return self._version.window_frames - prompt.features.shape[1]

    def decode(
        self,
        codes: Any,
        phones: Any,
        voice: mx.array,
        prompt: Prompt,
        vocoder: MelVocoder,
        *,
        speed: float = 1.0,
        steps: int | None = None,
        guidance: float = 0.0,
        temperature: float = 1.0,
        noise: Array | None = None,
        seed: int = 0,
        chunk_frames: int | None = MEL_CHUNK_FRAMES,
    ) -> mx.array:
        """Semantic tokens `[N]` and phones `[S]` of one sentence -> samples in [-1, 1], at the vocoder's rate.

        vocoder: a BigVGAN for v3, a HiFiGAN for v4. chunk_frames: how much it makes at a time, None for all at once.
        `vocoder.stream(self.windows(...))` gives the same in chunks. The others are `features`'s and `sample`'s.
        """
        spoken = self.features(codes, phones, voice, speed=speed)
        mels = self.windows(
            spoken, prompt, steps=steps, guidance=guidance, temperature=temperature, noise=noise, seed=seed
        )
        return mx.concatenate(list(vocoder.stream(mels, chunk_frames=chunk_frames)))


def with_base(weights: Mapping[str, mx.array], path: str | Path, base: str | Path | None) -> dict[str, mx.array]:
    """A LoRA's tensors, from `path`, over those of the model in `base`, a path or a hub id.

    Raises ConfigError where no base is given.
    """
    if base is None:
        raise ConfigError(f"{path} holds a LoRA. Give the model that it was trained on as base.")
    return {**SoVITSV3.read(resolve_network(base))[1], **{base_name(name): value for name, value in weights.items()}}


def normalised(log_mel: mx.array) -> mx.array:
    """Logarithms from -12 to 2 -> -1 to 1."""
    return (log_mel - _MIN_LOG) * (2 / (_MAX_LOG - _MIN_LOG)) - 1


def denormalised(mel: mx.array) -> mx.array:
    """The inverse of `normalised`."""
    return (mel + 1) * ((_MAX_LOG - _MIN_LOG) / 2) + _MIN_LOG
