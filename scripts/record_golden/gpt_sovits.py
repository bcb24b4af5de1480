"""Make the goldens of packages/gpt-sovits-mlx/tests from a full recording of GPT-SoVITS's own code.

    uv run python scripts/record_golden/gpt_sovits.py --goldens FOLDER [--out FOLDER]

FOLDER/tts holds `config.json` and `io.safetensors` of each network, FOLDER/seeded_weights.py draws their weights. What
is kept of them: what a test reads; of outputs some channels, bins or every fourth sample, with the whole shape in the
configuration; of weights what no seed gives; of inputs that versions share one copy.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

Arrays = dict[str, np.ndarray]
OUT = Path("packages/gpt-sovits-mlx/tests/goldens")

# What is read from the arrays by name, and how much of each; the first pattern counts.
FOURTH, EIGHTH = np.s_[..., ::4], np.s_[:, ::8]
CHANNELS = np.s_[:, ::4]
ALL = np.s_[...]
SOVITS: dict[str, Any] = {
    r"(.*/)?audio[12]?|audio_noise0": FOURTH,
    r"enc_p\.encoder2|m_p|logs_p|stream/latent2": CHANNELS,
    r"noise": np.s_[..., :40],  # longer than any output
    r"sv/emb20480": FOURTH,
    r"codes|phones|ge|multi_refer/ge|ssl_codes|stream/(k|latent1)": ALL,
}
SHARED: dict[str, Any] = {
    r"refer_spec": EIGHTH,
    r"refer_wav(32k)?|refer2_spec|ssl|sv_(emb_in2?|wav16k|fbank)": ALL,
}
FLOW: dict[str, Any] = {
    r"audio": FOURTH,
    r"fea_speed13": EIGHTH,
    r"cfm_(noise|out|out_cfg05)|lora/cfm_out|codes|phones|fea|ge|mel|mel_prompt|voc_in": ALL,
}
T2S: dict[str, Any] = {
    r"tf/logits": FOURTH,
    r"prefill/(k[1-9]|v[1-9]|layer\d|[xy]_emb)": None,
    r".*": ALL,
}
ENCODER: dict[str, Any] = {r"\d/hidden\d": None, r"\d/.*|wav|(wav_norm/)?last_hidden_state": ALL}
FOLDERS = {
    "t2s": T2S,
    "hubert": ENCODER,
    "bert": ENCODER,
    **dict.fromkeys(("sovits_v1", "sovits_v2", "sovits_v2Pro", "sovits_v2ProPlus"), SOVITS),
    **dict.fromkeys(("sovits_v3", "sovits_v4"), FLOW),
}
SHARING = "sovits_inputs.safetensors"
AUDIO = "audio.safetensors"
# Files of weights, the seed that drew them, and what they are called in the configuration.
DRAWN = {
    ("hubert", "weights"): (1, "weights"),
    ("bert", "weights"): (1, "weights"),
    ("sovits_v3", "vocoder"): (5, "vocoder_weights"),
    ("sovits_v4", "vocoder"): (5, "vocoder_weights"),
}
COPIED = ("format_sample.pth", "model.ckpt", "lora.safetensors")
# The seed drew weight norm's parts under torch's newer names.
NEWER_NAMES = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}


def kept(arrays: Arrays, rules: dict[str, Any]) -> tuple[Arrays, dict[str, list[int]]]:
    """The arrays that a rule names, thinned, and the whole shapes of those that are."""
    found, shapes = {}, {}
    for name, array in arrays.items():
        rule = next((rule for pattern, rule in rules.items() if re.fullmatch(pattern, name)), None)
        if rule is None:
            continue
        found[name] = np.ascontiguousarray(array[rule])
        if found[name].shape != array.shape:
            shapes[name] = list(array.shape)
    return found, shapes


def undrawn(weights: Arrays, seed: int, draw: Callable[..., Arrays]) -> tuple[dict[str, list[int]], Arrays]:
    """Shapes by the names that the seed draws by, and what it doesn't draw."""
    shapes, by_name = {}, {}
    for name, value in weights.items():
        prefix, _, last = name.rpartition(".")
        newer = f"{prefix}.{NEWER_NAMES[last]}" if last in NEWER_NAMES and "pos_conv" in name else name
        shapes[newer], by_name[newer] = list(value.shape), value
    drawn = draw(shapes, seed)
    return shapes, {name: value for name, value in by_name.items() if not np.array_equal(drawn[name], value)}


def record(source: Path, out: Path, draw: Callable[..., Arrays]) -> None:
    """Write every folder."""
    shared: Arrays = {}
    shapes: dict[str, list[int]]
    for name, rules in FOLDERS.items():
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        for file in folder.iterdir():
            file.unlink()
        arrays = load_file(source / name / "io.safetensors")
        config = json.loads((source / name / "config.json").read_text())
        config = {key: value for key, value in config.items() if key not in ("args", "io")}
        found, config["shapes"] = kept(arrays, rules)
        save_file(found, folder / "io.safetensors")
        if name.startswith("sovits"):
            inputs, _ = kept({key: value for key, value in arrays.items() if key not in found}, SHARED)
            if rules is FLOW:
                inputs.pop("refer_spec")
            for key, value in inputs.items():
                if not np.array_equal(shared.setdefault(key, value), value):
                    raise SystemExit(f"{key} of {name} is another than that of the folders before.")
        for (owner, stem), (seed, key) in DRAWN.items():
            if owner == name:
                shapes, rest = undrawn(load_file(source / name / f"{stem}.safetensors"), seed, draw)
                config[key], config[f"{key}_seed"] = shapes, seed
                if rest:
                    save_file(rest, folder / f"{key}.safetensors")
        (folder / "config.json").write_text(json.dumps(config, ensure_ascii=False) + "\n", encoding="utf-8")
        for copied in COPIED:
            if (source / name / copied).exists():
                shutil.copyfile(source / name / copied, folder / copied)
    save_file(shared, out / SHARING)
    save_file(spectrograms(source), out / AUDIO)
    for path in out.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def spectrograms(source: Path) -> Arrays:
    """Recordings of two references and their spectrograms: of v2's every eighth bin."""
    v2, v3, v4 = (load_file(source / f"sovits_{version}" / "io.safetensors") for version in ("v2", "v3", "v4"))
    if not np.array_equal(v3["refer_wav"], v4["refer_wav"]):
        raise SystemExit("v3's and v4's reference recordings differ: record both.")
    return {
        "v2.samples": v2["refer_wav32k"],
        "v2.spectrogram": np.ascontiguousarray(v2["refer_spec"][0, ::8]),
        "samples": v3["refer_wav"],
        "v3.mel": np.ascontiguousarray(v3["mel"][0]),
        "v4.mel": np.ascontiguousarray(v4["mel"][0]),
    }


def main() -> None:
    """Read the arguments and record."""
    parser = argparse.ArgumentParser(description="Make the goldens of gpt-sovits-mlx from a full recording.")
    parser.add_argument("--goldens", type=Path, required=True, help="the full recording")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    spec = importlib.util.spec_from_file_location("seeded_weights", args.goldens / "seeded_weights.py")
    if spec is None or spec.loader is None:
        raise SystemExit(f"{args.goldens} holds no seeded_weights.py.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    record(args.goldens / "tts", args.out, module.seeded_weights)


if __name__ == "__main__":
    main()
