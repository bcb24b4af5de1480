"""Record what FunASR's recognition networks compute, for packages/funasr-mlx/tests.

Run in an environment with torch 2.13.0, funasr 1.4.16 and safetensors:

    python scripts/record_golden/funasr_asr.py --out packages/funasr-mlx/tests/goldens/asr

`README.md` in the output folder describes the files.
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
from funasr.register import tables
from safetensors.numpy import save_file

FEATURES, WIDTH, VOCABULARY = 24, 16, 30
ROWS = (23, 14)
HOTWORDS = [[4, 9], [7], [11, 12, 13], [25, 3, 8, 8], [1]]

ENCODER = {
    "output_size": WIDTH,
    "attention_heads": 2,
    "linear_units": 20,
    "num_blocks": 2,
    "input_layer": "pe",
    "normalize_before": True,
    "kernel_size": 5,
    "sanm_shfit": 1,
    "selfattention_layer_type": "sanm",
}
DECODER = {
    "attention_heads": 2,
    "linear_units": 20,
    "num_blocks": 3,
    "att_layer_num": 2,
    "kernel_size": 5,
    "sanm_shfit": 1,
}
PREDICTOR = {
    "idim": WIDTH,
    "threshold": 1.0,
    "l_order": 1,
    "r_order": 2,
    "smooth_factor": 1.1,
    "noise_threshold": 0.05,
    "tail_threshold": 0.45,
}
FINER = {
    "smooth_factor2": 0.25,
    "noise_threshold2": 0.01,
    "upsample_times": 3,
    "upsample_type": "cnn_blstm",
    "use_cif1_cnn": False,
}
FIRING = {"predictor.cif_output.weight": (2, 0), "predictor.cif_output.bias": (0, -0.5)}
MODULES = {
    "Paraformer": "paraformer",
    "BiCifParaformer": "bicif_paraformer",
    "SeacoParaformer": "seaco_paraformer",
    "ContextualParaformer": "contextual_paraformer",
    "SenseVoiceSmall": "sense_voice",
}


def paraformer(model: str = "Paraformer", **changes: Any) -> dict[str, Any]:
    """A config.yaml's content, with parts of its tables changed."""
    contextual = model == "ContextualParaformer"
    finer = model in ("BiCifParaformer", "SeacoParaformer")
    return {
        "model": model,
        "model_conf": {"ctc_weight": 0.5, "predictor_bias": 1} | changes.get("model_conf", {}),
        "encoder": "SANMEncoder",
        "encoder_conf": ENCODER | changes.get("encoder_conf", {}),
        "decoder": "ContextualParaformerDecoder" if contextual else "ParaformerSANMDecoder",
        "decoder_conf": DECODER | changes.get("decoder_conf", {}),
        "predictor": "CifPredictorV3" if finer else "CifPredictorV2",
        "predictor_conf": PREDICTOR | (FINER if finer else {}) | changes.get("predictor_conf", {}),
    }


NO_BIAS = np.zeros(VOCABULARY)
NO_BIAS[20] = 2.5

CASES: dict[str, dict[str, Any]] = {
    "paraformer": {"config": paraformer()},
    # the norms' epsilon is seen where activations are small
    "paraformer_faint": {"config": paraformer(decoder_conf={"num_blocks": 2}), "gain": 0.02},
    "paraformer_no_tail": {"config": paraformer(predictor_conf={"tail_threshold": 0.0, "l_order": 2, "r_order": 0})},
    # more than a token in a frame: the reference loses some
    "paraformer_fast": {
        "config": paraformer(predictor_conf={"smooth_factor": 1.7}),
        "adjusted": {"predictor.cif_output.weight": (0.2, 0), "predictor.cif_output.bias": (0, 3.5)},
    },
    "bicif": {"config": paraformer("BiCifParaformer")},
    "bicif_fast": {
        "config": paraformer(
            "BiCifParaformer",
            predictor_conf={"smooth_factor": 1.7, "upsample_type": "cnn", "upsample_times": 2, "use_cif1_cnn": True},
        ),
        "adjusted": {"predictor.cif_output.weight": (0.2, 0), "predictor.cif_output.bias": (0, 3.5)},
    },
    # FunASR's attention there fails for masks unless nothing is upsampled
    "bicif_attention": {
        "config": paraformer("BiCifParaformer", predictor_conf={"upsample_type": "cnn_attn", "upsample_times": 1}),
    },
    "seaco": {
        "config": paraformer("SeacoParaformer", model_conf={"inner_dim": WIDTH, "NO_BIAS": 20})
        | {
            "seaco_decoder": "ParaformerSANMDecoder",
            "seaco_decoder_conf": DECODER
            | {"num_blocks": 4, "att_layer_num": 6, "use_output_layer": False, "wo_input_layer": True},
        },
        "adjusted": FIRING | {"hotword_output_layer.bias": (1, NO_BIAS.tolist())},
    },
    "contextual": {"config": paraformer("ContextualParaformer", model_conf={"inner_dim": WIDTH})},
    "sensevoice": {
        "config": {
            "model": "SenseVoiceSmall",
            "model_conf": {},
            "encoder": "SenseVoiceEncoderSmall",
            "encoder_conf": ENCODER | {"tp_blocks": 2},
        },
        "gain": 0.1,
        "adjusted": {"ctc.ctc_lo.weight": (20, 0)},
    },
}


def build(config: dict[str, Any]) -> Any:
    """FunASR's module."""
    for part in (MODULES[config["model"]], "sanm", "paraformer"):
        for name in ("model", "encoder", "decoder", "cif_predictor"):
            if importlib.util.find_spec(f"funasr.models.{part}.{name}"):
                importlib.import_module(f"funasr.models.{part}.{name}")
    importlib.import_module("funasr.models.ctc.ctc")
    options = {k: v for k, v in config.items() if k not in ("model", "model_conf")} | config["model_conf"]
    made = tables.model_classes[config["model"]](input_size=FEATURES, vocab_size=VOCABULARY, **options)
    return made.eval()


def recognize(model: Any, features: torch.Tensor) -> dict[str, torch.Tensor]:
    """The arrays that a Paraformer computes for `[1, T, F]`."""
    lengths = torch.tensor([features.shape[1]])
    encoder_out, encoder_len = model.encode(features.clone(), lengths)
    embeds, token_num, alphas, peaks = model.calc_predictor(encoder_out, encoder_len)[:4]
    tokens = token_num.round().long()
    result = {
        "encoder_out": encoder_out,
        "acoustic_embeds": embeds,
        "token_num": tokens.int(),
        "cif_alphas": alphas,
        "cif_peaks": peaks,
    }
    kind = type(model).__name__
    encoded = (encoder_out, encoder_len, embeds, tokens)
    if kind == "SeacoParaformer":
        result["logp"] = model._seaco_decode_with_ASF(*encoded, hw_list=None)
        result["logp_hotwords"] = model._seaco_decode_with_ASF(*encoded, hw_list=HOTWORDS)
        result["logp_two_hotwords"] = model._seaco_decode_with_ASF(*encoded, hw_list=HOTWORDS, nfilter=2)
    else:
        result["logp"] = model.cal_decoder_with_predictor(*encoded)[0]
    if kind == "ContextualParaformer":
        result["logp_hotwords"] = model.cal_decoder_with_predictor(*encoded, hw_list=HOTWORDS, clas_scale=0.5)[0]
    if hasattr(model, "calc_predictor_timestamp"):
        _, _, result["us_alphas"], result["us_peaks"] = model.calc_predictor_timestamp(*encoded[:2], tokens)
    return result


def listen(model: Any, features: torch.Tensor) -> dict[str, torch.Tensor]:
    """The arrays that SenseVoice computes for `[1, T, F]`, in Chinese with and in automatic language without ITN."""
    from funasr.models.sense_voice.utils.ctc_alignment import ctc_forced_align

    result = {}
    for name, queries in {"auto": [0, 1, 2, 15], "zh_itn": [3, 1, 2, 14]}.items():
        x = torch.cat([model.embed(torch.tensor([queries])), features], dim=1)
        encoder_out, lengths = model.encoder(x, torch.tensor([x.shape[1]]))
        logp = model.ctc.log_softmax(encoder_out)
        result[f"{name}.encoder_out"], result[f"{name}.logp"] = encoder_out, logp
        spelt = torch.unique_consecutive(logp[0].argmax(-1))
        result[f"{name}.ids"] = spelt[spelt != 0].int()
        text = torch.unique_consecutive(logp[0, 4:].argmax(-1))
        text = text[text != 0]
        scores = logp[:, 4:].clone()
        scores[0, scores[0].argmax(-1) == 0, 0] = 0
        result[f"{name}.text"] = text.int()
        result[f"{name}.align"] = ctc_forced_align(
            scores, text[None].long(), lengths - 4, torch.tensor([len(text)]), ignore_id=-1
        )[0].int()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    spec = importlib.util.spec_from_file_location("seeded_weights", out / "seeded_weights.py")
    if spec is None or spec.loader is None:
        parser.error(f"{out} has no seeded_weights.py.")
    seeded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(seeded)
    torch.set_num_threads(1)
    for name, case in CASES.items():
        config, gain, adjusted = case["config"], case.get("gain", 1.0), case.get("adjusted", FIRING)
        model = build(config)
        shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
        weights = seeded.seeded_weights(shapes, gain, adjusted)
        model.load_state_dict({key: torch.from_numpy(value) for key, value in weights.items()})
        arrays: dict[str, Any] = {}
        with torch.no_grad():
            for row, frames in enumerate(ROWS):
                drawn = np.random.default_rng(row).standard_normal((frames, FEATURES)).astype(np.float32)
                features = torch.from_numpy(drawn)[None]
                found = (listen if config["model"] == "SenseVoiceSmall" else recognize)(model, features)
                arrays |= {f"{row}.{key}": value.contiguous().numpy() for key, value in found.items()}
        save_file(arrays, out / f"{name}.safetensors")
        record = {
            "versions": {"funasr": funasr.__version__, "torch": torch.__version__},
            "config": config,
            "gain": gain,
            "adjusted": adjusted,
            "rows": ROWS,
            "features": FEATURES,
            "shapes": shapes,
        }
        (out / f"{name}.json").write_text(json.dumps(record) + "\n", encoding="utf-8")
        print(name, [arrays.get(f"{row}.token_num") for row in range(len(ROWS))])


if __name__ == "__main__":
    main()
