"""Record what FunASR's streaming Paraformer makes of each chunk, for packages/funasr-mlx/tests.

Run in an environment with torch 2.13.0, funasr 1.4.16 and safetensors:

    python scripts/record_golden/funasr_streaming.py --out packages/funasr-mlx/tests/goldens/streaming

Weights are those of `../asr/seeded_weights.py`; `README.md` in the output folder describes the files.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import funasr
import numpy as np
import torch
from funasr.frontends.wav_frontend import WavFrontendOnline
from funasr.register import tables
from funasr.tokenizer.char_tokenizer import CharTokenizer
from safetensors.numpy import save_file

TOKENS = ["<blank>", "<s>", "</s>", *"天地玄黄宇宙洪荒", "he@@", "ll@@", "o", "wor@@", "ld", *"abc", "the", "<unk>"]
FRONTEND = {"fs": 16000, "n_mels": 4, "frame_length": 25, "frame_shift": 10, "lfr_m": 7, "lfr_n": 6, "dither": 0.0}
FEATURES = 28
UNIT = 960  # samples of an encoder's frame

FIRING = {"predictor.cif_output.weight": (2, 0), "predictor.cif_output.bias": (0, -1.0)}
SELDOM = {"predictor.cif_output.weight": (3, 0), "predictor.cif_output.bias": (0, -3.5)}

CASES: dict[str, dict[str, Any]] = {
    "released": {"samples": 36000, "decoder": {"num_blocks": 2, "att_layer_num": 2, "kernel_size": 11}},
    # a last chunk of nothing, in an encoder whose first layer has a residual; a layer of decoders2 that is passed over
    "all_looked_back_to": {
        "width": FEATURES,
        "samples": 38400,
        "chunks": [3, 10, 4, -1, -1],
        "decoder": {"num_blocks": 3, "att_layer_num": 2},
    },
    # chunks without a token; a memory that doesn't see the last tokens
    "seldom": {
        "samples": 40100,
        "chunks": [2, 4, 6, 2, 3],
        "adjusted": SELDOM,
        "decoder": {"num_blocks": 4, "att_layer_num": 2, "kernel_size": 5, "sanm_shfit": 3},
        "tail": 0.0,
    },
    "nothing_after": {"samples": 22000, "chunks": [4, 5, 0, 2, 0], "decoder": {"sanm_shfit": 0}},
    "nothing_looked_back_to": {"samples": 3000, "chunks": [0, 2, 1, 0, 0], "decoder": {}},
}


def settings(case: dict[str, Any]) -> dict[str, Any]:
    """A config.yaml's content."""
    width = case.get("width", 16)
    return {
        "model": "ParaformerStreaming",
        "model_conf": {"ctc_weight": 0.0, "predictor_bias": 1},
        "encoder": "SANMEncoderChunkOpt",
        "encoder_conf": {
            "output_size": width,
            "attention_heads": 2,
            "linear_units": 20,
            "num_blocks": 3,
            "input_layer": "pe_online",
            "normalize_before": True,
            "kernel_size": 5,
            "sanm_shfit": 0,
            "selfattention_layer_type": "sanm",
        },
        "decoder": "ParaformerSANMDecoder",
        "decoder_conf": {
            "attention_heads": 2,
            "linear_units": 20,
            "num_blocks": 2,
            "att_layer_num": 2,
            "kernel_size": 5,
            "sanm_shfit": 5 if case["decoder"].get("kernel_size") == 11 else 1,
        }
        | case["decoder"],
        "predictor": "CifPredictorV2",
        "predictor_conf": {
            "idim": width,
            "threshold": 1.0,
            "l_order": 1,
            "r_order": 1,
            "tail_threshold": case.get("tail", 0.45),
        },
        "frontend_conf": FRONTEND,
    }


def recording(count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Noise that comes and goes, `[count]`; the tests make the same."""
    loud = np.sin(np.arange(count) / 1500) ** 2
    return (0.1 * loud * np.random.default_rng(count).standard_normal(count)).astype(np.float32)


def build(config: dict[str, Any]) -> Any:
    """FunASR's module."""
    for name in ("paraformer_streaming.model", "scama.encoder", "paraformer.decoder", "paraformer.cif_predictor"):
        importlib.import_module(f"funasr.models.{name}")
    parts = {k: v for k, v in config.items() if k not in ("model", "model_conf", "frontend_conf")}
    options = parts | config["model_conf"] | {"input_size": FEATURES, "vocab_size": len(TOKENS)}
    return tables.model_classes[config["model"]](**options).eval()


def listen(model: Any, config: dict[str, Any], case: dict[str, Any]) -> tuple[list[str], dict[str, torch.Tensor]]:
    """The text of each chunk, and what the networks made of it."""
    before, size, after, encoder_look_back, decoder_look_back = case.get("chunks", [0, 10, 5, 4, 1])
    samples = torch.from_numpy(recording(case["samples"]))
    texts: list[str] = []
    arrays: dict[str, torch.Tensor] = {}
    encode, decode = model.encode_chunk, model.cal_decoder_with_predictor_chunk

    def encoding(*args: Any, **options: Any) -> Any:
        found = encode(*args, **options)
        arrays[f"{len(texts)}.encoder_out"] = found[0].clone()
        return found

    def decoding(encoder_out: Any, lengths: Any, embeds: Any, *rest: Any, **options: Any) -> Any:
        found = decode(encoder_out, lengths, embeds, *rest, **options)
        arrays[f"{len(texts)}.acoustic_embeds"], arrays[f"{len(texts)}.logp"] = embeds.clone(), found[0].clone()
        return found

    model.encode_chunk, model.cal_decoder_with_predictor_chunk = encoding, decoding
    frontend = WavFrontendOnline(cmvn_file=None, **FRONTEND)
    tokenizer = CharTokenizer(token_list=TOKENS, unk_symbol="<unk>", split_with_space=True)
    cache: dict[str, Any] = {}
    step = size * UNIT
    starts = range(0, len(samples), step)
    for start in starts:
        result, _ = model.inference(
            [samples[start : start + step]],
            key=["recording"],
            tokenizer=tokenizer,
            frontend=frontend,
            cache=cache,
            device="cpu",
            is_final=start == starts[-1],
            chunk_size=[before, size, after],
            encoder_chunk_look_back=encoder_look_back,
            decoder_chunk_look_back=decoder_look_back,
            encoder_conf=config["encoder_conf"],
            frontend_conf=FRONTEND,
        )
        texts.append(result[0]["text"])
    return texts, arrays


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    spec = importlib.util.spec_from_file_location("seeded_weights", out.parent / "asr" / "seeded_weights.py")
    if spec is None or spec.loader is None:
        parser.error(f"{out.parent} has no asr/seeded_weights.py.")
    seeded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(seeded)
    torch.set_num_threads(1)
    record: dict[str, Any] = {
        "versions": {"funasr": funasr.__version__, "torch": torch.__version__},
        "tokens": TOKENS,
        "cases": {},
    }
    arrays: dict[str, Any] = {}
    for name, case in CASES.items():
        config, adjusted = settings(case), case.get("adjusted", FIRING)
        model = build(config)
        shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
        weights = seeded.seeded_weights(shapes, 1.0, adjusted)
        model.load_state_dict({key: torch.from_numpy(value) for key, value in weights.items()})
        with torch.no_grad():
            texts, found = listen(model, config, case)
        arrays |= {f"{name}.{key}": value.contiguous().numpy() for key, value in found.items()}
        record["cases"][name] = {
            "config": config,
            "adjusted": adjusted,
            "shapes": shapes,
            "chunks": case.get("chunks", [0, 10, 5, 4, 1]),
            "samples": case["samples"],
            "texts": texts,
        }
        print(name, texts)
    out.mkdir(parents=True, exist_ok=True)
    save_file(arrays, out / "chunks.safetensors")
    (out / "cases.json").write_text(json.dumps(record, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
