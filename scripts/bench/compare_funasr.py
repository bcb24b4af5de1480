"""Recognition at Paraformer-large's sizes, by turns with FunASR on torch: the same folder, recordings and processors.

The peer runs in an environment of its own (torch, funasr, kaldi-native-fbank), whose Python is given:

    uv run --package funasr-mlx scripts/bench/compare_funasr.py --peer-python path/to/python

It draws the weights, writes them as FunASR's folder, and recognizes when it is told to; both read the same folder, and
their texts are compared. Seconds per second of audio (RTF), loading not counted; the front end is.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SECONDS = (5.0, 15.0, 30.0)
CIF_BIAS = -1.6  # about four tokens a second
SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="the Python of an environment with torch and funasr")
    parser.add_argument("--model", default="Paraformer", choices=["Paraformer", "BiCifParaformer"])
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of both (default: all processors)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", metavar="DIR", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(Path(args.serve), args.model, args.threads)
        return
    if not args.peer_python:
        parser.error("--peer-python is needed")
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), args)


def compare(folder: Path, args: argparse.Namespace) -> None:
    import soundfile

    rng = np.random.default_rng(SEED)
    wavs = []
    for seconds in SECONDS:
        time_s = np.arange(int(seconds * 16000)) / 16000
        voiced = np.sin(2 * np.pi * 2.1 * time_s) > -0.5
        samples = 0.2 * np.sin(2 * np.pi * (120 + 30 * np.sin(4 * time_s)) * time_s) * voiced
        wavs.append(folder / f"{seconds:g}.wav")
        soundfile.write(wavs[-1], samples + 0.01 * rng.standard_normal(len(samples)), 16000, subtype="PCM_16")
    command = [
        args.peer_python,
        __file__,
        "--serve",
        str(folder),
        "--model",
        args.model,
        "--threads",
        str(args.threads),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as peer:
        assert peer.stdin is not None
        assert peer.stdout is not None
        stdin, stdout = peer.stdin, peer.stdout
        if stdout.readline().strip() != "ready":  # a line of the protocol
            raise SystemExit("the peer didn't start; see above")

        def theirs(wav: Path) -> tuple[float, str]:
            stdin.write(f"{wav}\n")
            stdin.flush()
            answer = json.loads(stdout.readline())
            return answer["seconds"], answer["text"]

        os.environ["OPENBLAS_NUM_THREADS"] = str(args.threads)
        from funasr_mlx.recognizer import load_model

        recognizer = load_model(folder / "model")

        def ours(wav: Path) -> tuple[float, str]:
            start = time.perf_counter()
            transcript = recognizer.transcribe(wav)
            return time.perf_counter() - start, transcript.text

        rows = [measure(seconds, wav, ours, theirs, args.rounds) for seconds, wav in zip(SECONDS, wavs, strict=True)]
        stdin.close()
    if args.json:
        print(json.dumps(rows))
        return
    for row in rows:
        print(
            f"{row['seconds']:g} s: ours RTF {row['ours']:.4f}, funasr {row['funasr']:.4f}, ratio {row['ratio']:.2f}x, "
            f"texts {'equal' if row['same_text'] else 'differ'}"
        )


def measure(
    seconds: float,
    wav: Path,
    ours: Callable[[Path], tuple[float, str]],
    theirs: Callable[[Path], tuple[float, str]],
    rounds: int,
) -> dict[str, Any]:
    """Medians of some rounds by turns, after one that isn't counted."""
    from mlx_core.bench import measure_rounds  # the peer's environment has no MLX

    def timed(run: Callable[[Path], tuple[float, str]]) -> Callable[[int], tuple[float, str]]:
        def contestant(_: int) -> tuple[float, str]:
            took, text = run(wav)
            time.sleep(0.5)  # until the other's idle threads no longer spin
            return took / seconds, text.replace(" ", "")

        return contestant

    rows = measure_rounds({"ours": timed(ours), "funasr": timed(theirs)}, rounds)
    result = {name: statistics.median(rtf for rtf, _ in found) for name, found in rows.items()}
    return {
        "seconds": seconds,
        **result,
        "ratio": result["funasr"] / result["ours"],
        "same_text": rows["ours"][-1][1] == rows["funasr"][-1][1],
    }


def serve(folder: Path, kind: str, threads: int) -> None:
    """The peer: make the model's folder, then recognize each file that is named on stdin."""
    with contextlib.redirect_stdout(sys.stderr):  # which its import writes to
        import torch
        from funasr import AutoModel
        from omegaconf import OmegaConf

    torch.manual_seed(SEED)
    model = folder / "model"
    model.mkdir()
    width, ffn, vocabulary = 512, 2048, 8404
    v3 = kind == "BiCifParaformer"
    predictor: dict[str, Any] = {"idim": width, "threshold": 1.0, "l_order": 1, "r_order": 1, "tail_threshold": 0.45}
    if v3:
        predictor |= {"smooth_factor2": 0.25, "noise_threshold2": 0.01, "upsample_times": 3, "use_cif1_cnn": False}
        predictor |= {"upsample_type": "cnn_blstm"}
    config = {
        "model": kind,
        "model_conf": {"ctc_weight": 0.0, "predictor_weight": 1.0, "predictor_bias": 1, "sampling_ratio": 0.75},
        "encoder": "SANMEncoder",
        "encoder_conf": {
            "output_size": width,
            "attention_heads": 4,
            "linear_units": ffn,
            "num_blocks": 50,
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
            "linear_units": ffn,
            "num_blocks": 16,
            "att_layer_num": 16,
            "kernel_size": 11,
            "sanm_shfit": 0,
        },
        "predictor": "CifPredictorV3" if v3 else "CifPredictorV2",
        "predictor_conf": predictor,
        "frontend": "WavFrontend",
        "frontend_conf": {
            "fs": 16000,
            "window": "hamming",
            "n_mels": 80,
            "frame_length": 25,
            "frame_shift": 10,
            "lfr_m": 7,
            "lfr_n": 6,
            "dither": 0.0,
        },
        "tokenizer": "CharTokenizer",
        "tokenizer_conf": {"unk_symbol": "<unk>", "split_with_space": True},
    }
    OmegaConf.save(OmegaConf.create(config), model / "config.yaml")
    # characters that are letters everywhere: one token each
    tokens = ["<blank>", "<s>", "</s>", *(chr(0x4E00 + number) for number in range(vocabulary - 4)), "<unk>"]
    (model / "tokens.json").write_text(json.dumps(tokens, ensure_ascii=False), encoding="utf-8")
    zeros, ones = (" ".join([value] * 560) for value in ("-10", "0.3"))
    (model / "am.mvn").write_text(
        f"<Nnet>\n<AddShift> 560 560\n<LearnRateCoef> 0 [ {zeros} ]\n<Rescale> 560 560\n<LearnRateCoef> 0 [ {ones} ]\n</Nnet>\n"
    )
    torch.save({}, model / "model.pt")
    with contextlib.redirect_stdout(sys.stderr):
        made = AutoModel(model=str(model), device="cpu", disable_update=True, disable_pbar=True, ncpu=threads)
        with torch.no_grad():
            made.model.predictor.cif_output.bias.fill_(CIF_BIAS)
        torch.save(made.model.state_dict(), model / "model.pt")
        torch.set_num_threads(threads)
    print("ready", flush=True)
    for line in sys.stdin:
        with contextlib.redirect_stdout(sys.stderr), torch.inference_mode():
            start = time.perf_counter()
            result = made.generate(input=line.strip())
            took = time.perf_counter() - start
        print(json.dumps({"seconds": took, "text": result[0]["text"] if result else ""}), flush=True)


if __name__ == "__main__":
    main()
