"""GPT-SoVITS's HuBERT and BERT against transformers on torch, fp32: the same weights, turn by turn in one run.

uv run --with torch --with transformers scripts/bench/compare_transformers.py [--rounds 5] [--threads N] [--json]

Both networks have the released sizes and random weights. The peer must first give what ours gives. A ratio is the
median over rounds of (transformers' time) / (ours); the first round doesn't count.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import torch
import transformers

from gpt_sovits_mlx import ChineseRoberta, CNHubert
from gpt_sovits_mlx.bench import bert_input, hubert_input
from gpt_sovits_mlx.networks import CheckpointModule, ChineseRobertaConfig, CNHubertConfig
from gpt_sovits_mlx.networks.released_sizes import randomised
from mlx_core import backend

Pair = tuple[Callable[[], np.ndarray], Callable[[], np.ndarray]]


def tensors(network: CheckpointModule, names: set[str]) -> dict[str, Any]:
    """The network's weights that the peer has a place for."""
    state = network.state_dict()
    return {
        name: torch.from_numpy(np.array(value.astype(mx.float32)).copy())
        for name, value in state.items()
        if name in names
    }


def hubert() -> Pair:
    """Both HuBERTs, each from the same samples to features."""
    ours, samples = randomised(CNHubert(CNHubertConfig())), hubert_input()
    theirs = transformers.HubertModel(transformers.HubertConfig(layerdrop=0.0)).eval()
    names = set(theirs.state_dict())
    with torch.no_grad():
        theirs.load_state_dict(tensors(ours, names), strict=False)
        parts = [f"encoder.pos_conv_embed.conv.parametrizations.weight.original{i}" for i in (0, 1)]
        if names >= set(parts):  # ours is folded
            folded = np.array(ours.state_dict()["encoder.pos_conv_embed.conv.weight"].astype(mx.float32))
            direction = torch.from_numpy(folded.copy())
            gain = direction.norm(dim=(0, 1), keepdim=True)
            theirs.load_state_dict(dict(zip(parts, (gain, direction), strict=True)), strict=False)
    return pair(ours, mx.array(samples), theirs, torch.from_numpy(samples))


def bert() -> Pair:
    """Both BERTs, of as many layers as are run, so that the peer isn't charged for more."""
    ours, tokens = randomised(ChineseRoberta(ChineseRobertaConfig())), bert_input()
    sizes = {"vocab_size": 21128, "hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096}
    config = transformers.BertConfig(**sizes, num_hidden_layers=22, layer_norm_eps=1e-12)
    theirs = transformers.BertModel(config, add_pooling_layer=False).eval()
    theirs.load_state_dict(tensors(ours, set(theirs.state_dict())), strict=False)
    return pair(ours, mx.array(tokens), theirs, torch.from_numpy(tokens.astype(np.int64)))


def pair(ours: Any, array: mx.array, theirs: Any, tensor: Any) -> Pair:
    """Two functions that give features, once they agree: otherwise times would be compared of different things."""

    def run() -> np.ndarray:
        return np.array(ours(array).astype(mx.float32))

    def peer() -> np.ndarray:
        with torch.inference_mode():
            features: np.ndarray = theirs(tensor).last_hidden_state.numpy()
        return features

    found, expected = run(), peer()
    difference = float(np.abs(found - expected).max())
    if not difference < 1e-3 * float(np.abs(expected).max()):
        raise SystemExit(f"transformers computes something else: the largest difference is {difference:g}.")
    return run, peer


def measure(both: Pair, rounds: int) -> dict[str, float]:
    """Medians in seconds, and of the ratio."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for contestant, spent in zip(both, times, strict=True):
            start = time.perf_counter()
            contestant()
            if number:
                spent.append(time.perf_counter() - start)
    ratio = statistics.median(theirs / ours for ours, theirs in zip(*times, strict=True))
    return {"ours_s": statistics.median(times[0]), "theirs_s": statistics.median(times[1]), "ratio": ratio}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="HuBERT and BERT against transformers on torch.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="torch's (default: its own choice)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    print(f"{backend.current().name}: {backend.current().device_name}, torch {torch.__version__}", file=sys.stderr)
    results = {name: measure(build(), args.rounds) for name, build in {"hubert": hubert, "bert": bert}.items()}
    if args.json:
        print(json.dumps(results))
    else:
        for name, found in results.items():
            print(
                f"{name:8} ours {found['ours_s']:.3f} s   transformers {found['theirs_s']:.3f} s   {found['ratio']:.2f}x"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
