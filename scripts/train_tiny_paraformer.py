"""Teach a small Paraformer some sixty English and Chinese words, from speech that espeak-ng synthesises.

    uv run scripts/train_tiny_paraformer.py --out build/tiny-paraformer
    uv run scripts/train_tiny_paraformer.py --out build/better --start build/tiny-paraformer --minutes 12

Its sum of alphas is held to the number of tokens, of each clip where the clips are known and so of the whole (the
length loss), and its tokens to those that were said (cross entropy); papers: https://arxiv.org/abs/1905.11235,
https://arxiv.org/abs/2206.08317. The folder has FunASR's keys, and `funasr_mlx` loads it. It appears whole or not at
all, once the error rate on voices outside the training set is known. Synthesis takes minutes, but is kept in `--cache`.
Progress goes to stderr, the error rates to stdout. Needs the program espeak-ng.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jiwer
import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_map
from tiny_paraformer.mixing import CONFIG, Mixer, coloured_noise
from tiny_paraformer.voices import FRONTEND, SAMPLE_RATE, Floats, check_espeak, strangers, synthesize
from tiny_paraformer.words import CHINESE, ENGLISH, TOKENS, ids, sentence

from funasr_mlx.folder import open_folder
from funasr_mlx.frontend import Frontend, make_frontend
from funasr_mlx.networks import Paraformer, cif_weights
from funasr_mlx.text import join_tokens
from mlx_core.errors import ConversionError, MLXCoreError
from mlx_core.models import Conv1d

WIDTH = 128
CONFIGURATION: dict[str, Any] = {
    "model": "Paraformer",
    "model_conf": {"ctc_weight": 0.0, "predictor_weight": 1.0, "predictor_bias": 0, "sampling_ratio": 0.0},
    "encoder": "SANMEncoder",
    "encoder_conf": {
        "output_size": WIDTH,
        "attention_heads": 4,
        "linear_units": 256,
        "num_blocks": 5,
        "input_layer": "pe",
        "pos_enc_class": "SinusoidalPositionEncoder",
        "normalize_before": True,
        "kernel_size": 11,
        "sanm_shfit": 0,
        "selfattention_layer_type": "sanm",
    },
    "decoder": "ParaformerSANMDecoder",
    "decoder_conf": {
        "attention_heads": 4,
        "linear_units": 256,
        "num_blocks": 2,
        "att_layer_num": 2,
        "kernel_size": 11,
        "sanm_shfit": 0,
    },
    "predictor": "CifPredictorV2",
    "predictor_conf": {"idim": WIDTH, "threshold": 1.0, "l_order": 1, "r_order": 1, "tail_threshold": 0.45},
    "frontend": "WavFrontend",
    "frontend_conf": FRONTEND,
    "tokenizer": "CharTokenizer",
    "tokenizer_conf": {"unk_symbol": "<unk>", "split_with_space": True},
}

STEPS = "trained_steps"
"""The key in config.json that says for how many steps a model has learnt."""
SPEAKERS, FLUENT = 54, 30
BATCH = 16
HARDEST_AT = 0.4
"""Of the training: when utterances are as long and noisy as they get."""
PEAK_RATE, WARMUP_STEPS, WEIGHT_DECAY, LARGEST_GRADIENT = 2e-3, 100, 0.02, 3.0
FITTED_BATCHES = 24
"""Of which the normalisation is."""
TESTED = 160
"""Test utterances in each language."""
NOISE_DB = 10
"""By which the noise of the noisy ones is below the speech."""


@dataclass(frozen=True)
class Recording:
    """Speech of a voice outside the training set, and its text: `language` is "en" or "zh"."""

    samples: Floats
    tokens: list[str]
    language: str
    noisy: bool

    @property
    def text(self) -> str:
        return join_tokens(self.tokens).text


def recordings(seed: int, count: int) -> list[Recording]:
    """`count` utterances in each language and of each kind, from voices that aren't learnt from."""
    rng = np.random.default_rng((seed, 2))
    made = []
    for i, stranger in enumerate(strangers(rng, 2 * count)):
        language = "en" if i < count else "zh"
        words = sentence(rng, ENGLISH if language == "en" else CHINESE)
        groups = [words] if i // 4 % 2 else [[word] for word in words]  # in one breath, or one by one
        parts = [_silence(rng, 1600, 8000)]
        for group in groups:
            parts += [stranger.say(group), _silence(rng, 800, 5000)]
        gain = np.float32(rng.uniform(0.3, 1.5))
        clean = np.concatenate([*parts, _silence(rng, 0, 6000)]) * gain
        noise = coloured_noise(rng, len(clean), float(rng.uniform(0, 2)))
        noise *= gain * np.float32(10 ** (-NOISE_DB / 20))  # which is as loud as the speech
        tokens = [TOKENS[number] for number in ids(words)]
        made += [Recording(clean, tokens, language, False), Recording(clean + noise, tokens, language, True)]
    return made


def _silence(rng: np.random.Generator, minimum: int, maximum: int) -> Floats:
    return np.zeros(rng.integers(minimum, maximum), np.float32)


def recognize(model: Paraformer, frontend: Frontend, samples: Floats) -> str:
    """The text of a recording, the likeliest token at each place."""
    features = frontend(samples)
    output = model(features[None], np.array([len(features)]))
    if not output.logits.size:
        return ""
    said = np.array(mx.argmax(output.logits[0], axis=-1))
    return join_tokens([TOKENS[number] for number in said if number > 2]).text


def error_rates(model: Paraformer, frontend: Frontend, tests: list[Recording]) -> dict[str, float]:
    """By language and kind: of words in English, of characters in Chinese."""
    rates = {}
    for language, measure in (("en", jiwer.wer), ("zh", jiwer.cer)):
        for noisy in (False, True):
            chosen = [test for test in tests if (test.language, test.noisy) == (language, noisy)]
            hypotheses = [recognize(model, frontend, test.samples) for test in chosen]
            rates[f"{language} {'noisy' if noisy else 'clean'}"] = measure([test.text for test in chosen], hypotheses)
    return rates


def new_model(seed: int) -> Paraformer:
    """The network as it is before it has learnt anything."""
    mx.random.seed(seed)
    model = Paraformer(CONFIGURATION, CONFIG.width, len(TOKENS))
    model.checkpoint_config = CONFIGURATION
    for _, module in model.named_modules():
        if isinstance(module, Conv1d):  # which are zero until they are filled
            bound = 1 / math.sqrt(math.prod(module.weight.shape[1:]))
            module.weight = mx.random.uniform(-bound, bound, module.weight.shape)
    model.predictor.cif_output.bias = mx.array([-2.0])  # a token in eight rows, about what is spoken
    return model


def losses(model: Paraformer, batch: dict[str, mx.array]) -> tuple[mx.array, mx.array, mx.array]:
    """The loss, and its parts: cross entropy a token, tokens too many or too few a clip."""
    mask, tokens, wanted = batch["mask"], batch["tokens"], batch["tokens"] > 0
    hidden = model.encoder(batch["features"], mask)
    speech = mx.where(mask[..., None], hidden, 0)
    alphas = model.predictor.alphas(speech, mask)
    surplus = mx.abs((batch["clips"] @ alphas[..., None]).squeeze(-1) - batch["counts"])
    length = surplus.sum() / (batch["counts"] > 0).sum()
    scaled = alphas * (wanted.sum(axis=1) / alphas.sum(axis=1))[:, None]
    embeds = mx.where(wanted[..., None], cif_weights(scaled, tokens.shape[1]) @ speech, 0)
    logits = model.decoder.output_layer(model.decoder(embeds, hidden, wanted, mask))
    said = nn.losses.cross_entropy(logits, tokens, label_smoothing=0.05)
    entropy = mx.where(wanted, said, 0).sum() / wanted.sum()
    return entropy + length, entropy, length


def train(model: Paraformer, mixer: Mixer, frontend: Frontend, steps: int, minutes: float, *, fresh: bool) -> int:
    """Learn for `steps`, or fewer if the time is short: the learning rate falls to nothing by then. Returns the steps.

    A network that was trained before skips the easy part, and learns at half the rate.
    """
    optimizer = optim.AdamW(learning_rate=0.0, betas=[0.9, 0.98], weight_decay=WEIGHT_DECAY, bias_correction=True)
    gradients = nn.value_and_grad(model, losses)
    batches = mixer.batches(BATCH)
    start, told = time.monotonic(), 0.0
    step, done = 0, 0.0
    while done < 1:
        mixer.hardness = min(1, done / HARDEST_AT) if fresh else 1
        batch = next(batches)
        arrays = {
            "features": frontend.normalize(mx.array(batch.features)),
            "mask": mx.array(np.arange(batch.features.shape[1]) < batch.lengths[:, None]),
            "tokens": mx.array(batch.tokens),
            "clips": mx.array(batch.clips),
            "counts": mx.array(batch.counts),
        }
        (total, entropy, length), grads = gradients(model, arrays)
        grads, _ = optim.clip_grad_norm(grads, LARGEST_GRADIENT)
        rate = (
            PEAK_RATE * (1 if fresh else 0.5) * min(1, (step + 1) / WARMUP_STEPS) * 0.5 * (1 + math.cos(math.pi * done))
        )
        optimizer.learning_rate = rate
        optimizer.update(model, grads)
        mx.eval(model.parameters(), optimizer.state, total)
        step += 1
        passed = time.monotonic() - start
        done = max(step / steps, passed / (60 * minutes))
        if passed - told > 5 or done >= 1:
            told = passed
            report = f"step {step:5d}, {100 * min(done, 1):3.0f} %: cross entropy {entropy.item():.3f}, "
            print(f"{report}length {length.item():.3f}, {passed / step:.2f} s a step", file=sys.stderr)
    return step


def fitted_frontend(mixer: Mixer, folder: Path) -> Frontend:
    """The front end whose normalisation is that of the training data; writes am.mvn."""
    some = itertools.islice(mixer.batches(BATCH), FITTED_BATCHES)
    rows = np.concatenate([row[:n] for batch in some for row, n in zip(batch.features, batch.lengths, strict=True)])
    shift, scale = -rows.mean(axis=0), 1 / rows.std(axis=0)
    lines = ["<Nnet>", f"<Splice> {CONFIG.width} {CONFIG.width}", "[ 0 ]"]
    for name, vector in (("<AddShift>", shift), ("<Rescale>", scale)):
        numbers = " ".join(f"{number:.6g}" for number in vector)
        lines += [f"{name} {CONFIG.width} {CONFIG.width}", f"<LearnRateCoef> 0 [ {numbers} ]"]
    (folder / "am.mvn").write_text("\n".join([*lines, "</Nnet>", ""]))
    return make_frontend(FRONTEND, folder / "am.mvn")


def write_recordings(tests: list[Recording], folder: Path, count: int) -> None:
    """`count` short recordings as FLAC, every fifth a noisy one, and what is said in them as transcripts.json."""
    import soundfile

    folder.mkdir(parents=True, exist_ok=True)
    short = [test for test in tests if len(test.samples) < 1.7 * SAMPLE_RATE and len(test.tokens) > 1]
    texts = {}
    for i in range(count):
        wanted = ("en" if i % 3 else "zh", i % 5 == 4)
        test = next(test for test in short if (test.language, test.noisy) == wanted)
        short = [other for other in short if other.text != test.text]
        name = f"{i:02d}-{test.language}-{'noisy' if test.noisy else 'clean'}.flac"
        soundfile.write(folder / name, test.samples, SAMPLE_RATE, subtype="PCM_16")
        texts[name] = test.text
    (folder / "transcripts.json").write_text(json.dumps(texts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def describe(rates: Mapping[str, float], seed: int, steps: int, before: int) -> str:
    """The folder's README."""
    words = ", ".join(word.spoken for word in ENGLISH)
    chinese = ", ".join("".join(word.tokens) for word in CHINESE)
    lines = "\n".join(f"| {kind} | {100 * rate:.1f} % |" for kind, rate in rates.items())
    earlier = f", {before} of them in an earlier run (`--start`)," if before else ""
    return f"""# A demonstration, not for real use

A small Paraformer that knows {len(ENGLISH) + len(CHINESE)} words and was trained on a synthesiser alone: it shows that the
package recognizes speech end to end. `scripts/train_tiny_paraformer.py` made it, with seed {seed} in {steps} steps{earlier} of
{BATCH} utterances, from {SPEAKERS} speakers of espeak-ng. FunASR's keys; fp16.

English: {words}.

Chinese: {chinese}.

Error rates on voices outside the training set (the variants m2, m7, f2 and f4; in English also New York's accent),
of {TESTED} utterances each of one to six words, with and without noise {NOISE_DB} dB below the speech; of words for
English (en), of characters for Chinese (zh):

| | error rate |
|---|---|
{lines}
"""


def main() -> int:
    """Run the command; the exit status is 0 when the folder is written."""
    parser = argparse.ArgumentParser(description="Train the demonstration's Paraformer on speech from espeak-ng.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the model; new or empty")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=8000, help="steps to learn for (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=30, help="to learn for at most (default: %(default)s)")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlx-core" / "tiny-paraformer"
    parser.add_argument(
        "--cache", type=Path, default=cache, help="folder for synthesised speech (default: %(default)s)"
    )
    parser.add_argument("--start", type=Path, help="folder that this made, to learn on from")
    parser.add_argument("--recordings", type=Path, help="folder for 20 short ones of the test's recordings, as FLAC")
    arguments = parser.parse_args()
    try:
        run(arguments)
    except (MLXCoreError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: nothing is written; what was synthesised is kept.", file=sys.stderr)
        return 130
    return 0


def run(arguments: argparse.Namespace) -> None:
    """Synthesise, train, measure, write. Raises MLXCoreError and OSError."""
    out, seed = arguments.out, arguments.seed
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConversionError(f"{out} exists and isn't an empty folder. Choose another name, or delete it first.")
    check_espeak()
    voices = []
    for voice in synthesize(seed, SPEAKERS, FLUENT, arguments.cache, os.cpu_count() or 1):
        voices.append(voice)
        print(f"\rspeaker {len(voices)} of {SPEAKERS}", end="", file=sys.stderr)
    print(file=sys.stderr)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        before = 0
        if arguments.start:
            known = open_folder(arguments.start)
            before = int(known.config[STEPS])
            shutil.copyfile(known.path / "am.mvn", folder / "am.mvn")
            frontend = known.frontend()
            model = Paraformer.from_state_dict(CONFIGURATION, known.weights(), dtype=mx.float32)
        mixer = Mixer(voices, np.random.default_rng((seed, 3, before)))
        if not arguments.start:
            frontend = fitted_frontend(mixer, folder)
            model = new_model(seed)
        steps = before + train(model, mixer, frontend, arguments.steps, arguments.minutes, fresh=not arguments.start)
        model.checkpoint_config = {**CONFIGURATION, STEPS: steps}
        model.update(tree_map(lambda value: value.astype(mx.float16), model.parameters()))
        tests = recordings(seed, TESTED)
        rates = error_rates(Paraformer.from_state_dict(CONFIGURATION, model.state_dict()), frontend, tests)
        (folder / "tokens.json").write_text(json.dumps(TOKENS, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        (folder / "README.md").write_text(describe(rates, seed, steps, before), encoding="utf-8")
        model.save(out, files={file: folder / file for file in ("am.mvn", "tokens.json", "README.md")})
    if arguments.recordings:
        write_recordings(tests, arguments.recordings, 20)
    for kind, rate in rates.items():
        print(f"{kind}: {100 * rate:.2f} %")


if __name__ == "__main__":
    sys.exit(main())
