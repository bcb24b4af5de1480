"""Record what transformers computes for tiny random Llama, Qwen2, Qwen3 and Qwen3-MoE models.

Run once in an environment with transformers 4.57.6, then once in one with 5.23.0 (each with torch for the CPU):

    python scripts/record_golden/qwen3_models.py --out packages/qwen3-mlx/tests/goldens

Every tensor is drawn by numpy from its name, so both versions hold the same weights: the run that finds weights already
there checks that. A case is kept only if it notices what it is there for: each configuration in its `unlike` must move
some logit by `MIN_EFFECT`. `README.md` in the output folder describes the files.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from safetensors.numpy import load_file, save_file

SEED = 2
NEW_TOKENS = 16
AGREEMENT = 1e-5  # logits of the two versions that differ by no more are recorded once
MIN_EFFECT = 1e-2  # fifty times the tolerance that the goldens are compared at
MIN_MARGIN = 2e-2  # between the two best logits at each greedy step, and so no rounding decides a token
MIN_ROUTER_GAP = 1e-4  # between the last expert chosen and the first one left out, in probability
LOGIT_RANGE = (3.0, 8.0)

Config = dict[str, Any]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]
Tensors = dict[str, npt.NDArray[Any]]

ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
}

# Entries are those of published config.json files: rope_theta and rope_scaling at the top, no layer_types.
BASE: Config = {
    "hidden_act": "silu",
    "hidden_size": 32,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000.0,
    "tie_word_embeddings": False,
    "vocab_size": 64,
}
# Scaled RoPE wants more than four frequencies to tell its parts from one another.
WIDE_HEADS: Config = {"num_attention_heads": 2, "num_key_value_heads": 1}
WIDE_HEADS_3: Config = {**WIDE_HEADS, "head_dim": 16}
EXPERTS: Config = {
    "decoder_sparse_step": 1,
    "head_dim": 16,
    "mlp_only_layers": [],
    "moe_intermediate_size": 16,
    "norm_topk_prob": True,
    "num_experts": 8,
    "num_experts_per_tok": 2,
}
YARN: Config = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
YARN_BY_LIMIT: Config = {"rope_type": "yarn", "factor": 2.0, "beta_fast": 2.0, "beta_slow": 0.25}
LLAMA3: Config = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
LONGROPE: Config = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.05, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6],
    "long_factor": [1.0, 1.3, 1.7, 2.2, 2.8, 3.4, 3.8, 4.0],
}
LONGROPE_NESTED: Config = {**LONGROPE, "factor": 3.0, "original_max_position_embeddings": 32}


@dataclass(frozen=True)
class Case:
    """A configuration, what is run through it, and configurations that must not give the same logits."""

    model_type: str
    config: Config
    note: str
    batch: int = 1
    length: int = 24
    prompt: int = 6
    unlike: tuple[Config, ...] = ()
    max_shard_size: str = "5GB"
    fused_experts: bool = False
    by_length: bool = False  # frequencies depend on the length of the whole sequence

    def full_config(self, changes: Config | None = None) -> Config:
        """The config.json of a published checkpoint; `changes` replace entries, or drop them where None."""
        config: Config = {
            "architectures": [ARCHITECTURES[self.model_type]],
            "model_type": self.model_type,
            "torch_dtype": "float32",
            **BASE,
            **(EXPERTS if self.model_type == "qwen3_moe" else {}),
            **self.config,
            **(changes or {}),
        }
        return copy.deepcopy({key: value for key, value in sorted(config.items()) if value is not None})


NO_SCALING: Config = {"rope_scaling": None}

CASES: dict[str, Case] = {
    "llama_untied": Case("llama", {}, "no biases", batch=2, unlike=({"rope_theta": 10000.0},)),
    "llama_tied": Case("llama", {"tie_word_embeddings": True}, "head is the embedding"),
    "llama_bias": Case("llama", {"attention_bias": True}, "biases on q, k, v and o"),
    "llama_llama3": Case(
        "llama",
        {**WIDE_HEADS, "rope_scaling": LLAMA3},
        "llama3 scaling, longer than the original context",
        length=48,
        prompt=30,
        unlike=(NO_SCALING, {"rope_scaling": {**LLAMA3, "high_freq_factor": 2.0}}),
    ),
    "qwen2_untied": Case(
        "qwen2",
        {
            "num_hidden_layers": 3,
            "rms_norm_eps": 1e-2,
            "rope_theta": 500.0,
            "use_sliding_window": False,
            "sliding_window": 4,
            "max_window_layers": 0,
        },
        "biases on q, k and v; a window that is switched off",
        batch=2,
        unlike=({"rms_norm_eps": 1e-6}, {"rope_theta": 10000.0}, {"use_sliding_window": True}),
    ),
    "qwen2_tied": Case("qwen2", {"tie_word_embeddings": True}, "head is the embedding"),
    "qwen2_yarn": Case(
        "qwen2",
        {**WIDE_HEADS, "max_position_embeddings": 32, "rope_scaling": YARN},
        "yarn whose factor isn't max / original positions, longer than the original context",
        batch=2,
        length=48,
        prompt=30,
        unlike=(
            NO_SCALING,
            {"rope_scaling": {**YARN, "factor": 1.0}},
            {"rope_scaling": {**YARN, "attention_factor": 1.0}},
            {"rope_scaling": {**YARN, "original_max_position_embeddings": 128}},
        ),
    ),
    "qwen2_window": Case(
        "qwen2",
        {"num_hidden_layers": 4, "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2},
        "window of 8 keys in layers 2 and 3",
        batch=2,
        length=40,
        unlike=(
            {"sliding_window": 7},
            {"sliding_window": 9},
            {"max_window_layers": 1},
            {"max_window_layers": 3},
            {"use_sliding_window": False},
        ),
    ),
    "qwen2_linear": Case(
        "qwen2",
        {**WIDE_HEADS, "rope_scaling": {"type": "linear", "factor": 3.0}},
        "linear scaling",
        unlike=(NO_SCALING,),
    ),
    "qwen2_dynamic": Case(
        "qwen2",
        {**WIDE_HEADS, "max_position_embeddings": 32, "rope_scaling": {"type": "dynamic", "factor": 2.0}},
        "dynamic scaling beyond max_position_embeddings; the greedy loop crosses it",
        length=48,
        prompt=24,
        unlike=(NO_SCALING,),
        by_length=True,
    ),
    "qwen2_longrope": Case(
        "qwen2",
        {**WIDE_HEADS, "max_position_embeddings": 64, "rope_scaling": LONGROPE_NESTED},
        "original_max_position_embeddings inside rope_scaling, factor given",
        length=48,
        prompt=36,
        unlike=(NO_SCALING,),
        by_length=True,
    ),
    "qwen2_longrope_top": Case(
        "qwen2",
        {**WIDE_HEADS, "max_position_embeddings": 64, "original_max_position_embeddings": 32, "rope_scaling": LONGROPE},
        "original_max_position_embeddings at the top; tokens use the long factors, greedy the short ones",
        length=48,
        prompt=8,
        unlike=(NO_SCALING, {"rope_scaling": {**LONGROPE, "attention_factor": 1.0}}),
        by_length=True,
    ),
    "qwen3_sharded": Case(
        "qwen3",
        {"head_dim": 16, "num_hidden_layers": 3},
        "head_dim isn't hidden_size / heads; several shards",
        batch=2,
        max_shard_size="40KB",
    ),
    "qwen3_tied": Case("qwen3", {"head_dim": 8, "tie_word_embeddings": True}, "head is the embedding"),
    "qwen3_bias": Case("qwen3", {"head_dim": 8, "attention_bias": True}, "biases on q, k, v and o"),
    "qwen3_linear": Case(
        "qwen3",
        {**WIDE_HEADS_3, "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
        "linear scaling",
        unlike=(NO_SCALING,),
    ),
    "qwen3_yarn": Case(
        "qwen3",
        {**WIDE_HEADS_3, "max_position_embeddings": 32, "rope_scaling": YARN_BY_LIMIT},
        "yarn without original_max_position_embeddings, longer than max_position_embeddings",
        length=48,
        prompt=30,
        unlike=(
            NO_SCALING,
            {"rope_scaling": {**YARN_BY_LIMIT, "beta_fast": 32.0}},
            {"rope_scaling": {**YARN_BY_LIMIT, "beta_slow": 1.0}},
            {"rope_scaling": {**YARN_BY_LIMIT, "original_max_position_embeddings": 128}},
        ),
    ),
    "qwen3_llama3": Case(
        "qwen3",
        {**WIDE_HEADS_3, "rope_scaling": LLAMA3},
        "llama3 scaling, longer than the original context",
        length=48,
        prompt=30,
        unlike=(NO_SCALING,),
    ),
    "qwen3_window": Case(
        "qwen3",
        {
            "head_dim": 8,
            "num_hidden_layers": 3,
            "use_sliding_window": True,
            "sliding_window": 6,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
        "window of 6 keys in layers 0 and 2, by layer_types; max_window_layers left at its default",
        batch=2,
        length=40,
        unlike=(
            {"sliding_window": 5},
            {"sliding_window": 7},
            {"layer_types": ["sliding_attention"] * 3},
            {"layer_types": ["full_attention", "sliding_attention", "full_attention"]},
        ),
    ),
    "qwen3_moe_mixed": Case(
        "qwen3_moe",
        {"decoder_sparse_step": 2, "mlp_only_layers": [3], "num_hidden_layers": 4},
        "only layer 1 is sparse; renormalised; 24 routed indices",
        length=12,
        unlike=({"norm_topk_prob": False},),
    ),
    "qwen3_moe_raw": Case(
        "qwen3_moe",
        {
            "decoder_sparse_step": 2,
            "head_dim": 8,
            "mlp_only_layers": [1],
            "norm_topk_prob": False,
            "num_hidden_layers": 4,
        },
        "only layer 3 is sparse; not renormalised; 96 routed indices",
        batch=2,
        unlike=({"norm_topk_prob": True},),
    ),
    "qwen3_moe_wide": Case(
        "qwen3_moe",
        {"head_dim": 8, "mlp_only_layers": [0], "num_experts": 16, "num_experts_per_tok": 4},
        "layer 0 is dense; 4 of 16 experts; 192 routed indices",
        batch=2,
        unlike=({"num_experts_per_tok": 3},),
    ),
    "qwen3_moe_window": Case(
        "qwen3_moe",
        {
            "attention_bias": True,
            "head_dim": 8,
            "max_window_layers": 1,
            "num_experts": 4,
            "sliding_window": 8,
            "use_sliding_window": True,
        },
        "window of 8 keys in every layer, whatever max_window_layers says; biases on q, k, v and o",
        length=40,
        unlike=({"sliding_window": 7}, {"sliding_window": 9}, {"use_sliding_window": False}),
        fused_experts=True,
    ),
    "qwen3_moe_yarn": Case(
        "qwen3_moe",
        {**WIDE_HEADS, "num_experts": 4, "max_position_embeddings": 128, "rope_scaling": YARN},
        "yarn, longer than the original context",
        length=48,
        prompt=30,
        unlike=(NO_SCALING,),
    ),
}


class GoldenError(RuntimeError):
    """A golden that would not be worth recording."""


def check(condition: bool, message: str) -> None:
    """Raise GoldenError unless the condition holds."""
    if not condition:
        raise GoldenError(message)


def draw(name: str, shape: tuple[int, ...]) -> Floats:
    """The tensor that every checkpoint holds under `name`, if it has this shape."""
    rng = np.random.default_rng([SEED, zlib.crc32(name.encode())])
    if name.endswith(("q_norm.weight", "k_norm.weight")):
        return rng.uniform(1.0, 2.0, shape).astype(np.float32)
    if name.endswith("norm.weight"):
        return rng.uniform(0.6, 1.4, shape).astype(np.float32)
    scale = 0.3 if name.endswith("bias") else 1.4 / shape[-1] ** 0.5
    if name in ("model.embed_tokens.weight", "lm_head.weight"):
        scale = 0.23  # gives logits of order 5
    return rng.standard_normal(shape, dtype=np.float32) * np.float32(scale)


def draw_parameter(name: str, shape: tuple[int, ...]) -> Floats:
    """As `draw`, but transformers 5 holds experts as `gate_up_proj [E, 2I, H]` and `down_proj [E, H, I]`."""
    stem, _, kind = name.rpartition(".experts.")
    if kind == "down_proj":
        return np.stack([draw(f"{stem}.experts.{i}.down_proj.weight", shape[1:]) for i in range(shape[0])])
    if kind == "gate_up_proj":
        half = (shape[1] // 2, shape[2])
        pairs = [
            [draw(f"{stem}.experts.{i}.{part}.weight", half) for part in ("gate_proj", "up_proj")]
            for i in range(shape[0])
        ]
        return np.stack([np.concatenate(pair) for pair in pairs])
    return draw(name, shape)


def build(config: Config) -> Any:
    """A model of the reference with drawn weights, for the entries of a config.json."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config))
        parsed = transformers.AutoConfig.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_config(parsed, attn_implementation="eager", dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(draw_parameter(name, tuple(parameter.shape))))
    return model.eval()


def forward(model: Any, tokens: Ints, **kwargs: Any) -> Any:
    """One full pass, with no cache and with no memory of the lengths that were seen before."""
    model.model.rotary_emb = type(model.model.rotary_emb)(model.config)
    with torch.no_grad():
        return model(torch.from_numpy(tokens.astype(np.int64)), use_cache=False, **kwargs)


def logits_of(model: Any, tokens: Ints) -> Floats:
    """[B, L] -> [B, L, vocab]."""
    return forward(model, tokens).logits.numpy().astype(np.float32)


def router_gap(model: Any, tokens: Ints) -> float:
    """The smallest difference in probability between an expert that is chosen and one that isn't."""
    if model.config.model_type != "qwen3_moe":
        return 1.0
    chosen = model.config.num_experts_per_tok
    layers = forward(model, tokens, output_router_logits=True).router_logits
    best = [torch.softmax(layer.float(), -1).sort(-1, descending=True).values for layer in layers]
    return min(float((p[:, chosen - 1] - p[:, chosen]).min()) for p in best)


def greedy(model: Any, prompt: Ints) -> tuple[Ints, float]:
    """The `NEW_TOKENS` that follow the prompt, and the smallest lead that one of them had over the next best."""
    tokens, margin = prompt, float("inf")
    for _ in range(NEW_TOKENS):
        last = logits_of(model, tokens)[:, -1]
        second, first = np.sort(last, axis=-1)[0, -2:]
        margin = min(margin, float(first - second))
        tokens = np.concatenate([tokens, last.argmax(-1)[:, None].astype(np.int32)], axis=1)
    return tokens[:, prompt.shape[1] :], margin


def candidates(case: str, shape: tuple[int, int]) -> Iterator[Ints]:
    """Random tokens, one batch after the other."""
    for attempt in itertools.count():
        rng = np.random.default_rng([SEED, zlib.crc32(case.encode()), attempt, *shape])
        yield rng.integers(0, BASE["vocab_size"], shape, dtype=np.int32)


def record_io(name: str, case: Case, model: Any) -> Tensors:
    """Tokens and logits, prompt and continuation; the first that no rounding error can turn."""
    for tokens in candidates(name, (case.batch, case.length)):
        if router_gap(model, tokens) >= MIN_ROUTER_GAP:
            break
    for prompt in candidates(name, (1, case.prompt)):
        continuation, margin = greedy(model, prompt)
        whole = np.concatenate([prompt, continuation], axis=1)
        ends_early = np.isin(continuation, model.config.eos_token_id or -1).any()
        varied = len(set(continuation[0].tolist())) > 3
        if margin >= MIN_MARGIN and router_gap(model, whole) >= MIN_ROUTER_GAP and varied and not ends_early:
            break
    logits = logits_of(model, tokens)
    low, high = LOGIT_RANGE
    check(low < np.abs(logits).max() < high, f"{name}: max |logit| is {np.abs(logits).max()}")
    for changes in case.unlike:
        effect = np.abs(logits_of(build(case.full_config(changes)), tokens) - logits).max()
        check(effect >= MIN_EFFECT, f"{name}: {changes} changes the logits by {effect} only")
    return {"tokens": tokens, "logits": logits, "greedy_prompt": prompt, "greedy": continuation}


def read_weights(folder: Path) -> Tensors:
    """All tensors of the checkpoint in a folder."""
    return {name: tensor for path in folder.glob("model*.safetensors") for name, tensor in load_file(path).items()}


def reload_difference(weights: list[Path], config: Path, io: Tensors) -> float:
    """Largest |logits - recorded| of the checkpoint in these files, loaded by the reference under this config.json."""
    with tempfile.TemporaryDirectory() as name:
        for path in weights:
            shutil.copy(path, Path(name) / path.name.replace("fused", "model"))
        shutil.copy(config, Path(name) / "config.json")
        loaded = transformers.AutoModelForCausalLM.from_pretrained(
            name, attn_implementation="eager", dtype=torch.float32
        )
        return float(np.abs(logits_of(loaded.eval(), io["tokens"]) - io["logits"]).max())


def record(name: str, case: Case, out: Path) -> Config:
    """Write one case; return its row of `cases.json`."""
    major = transformers.__version__.split(".")[0]
    other = {"4": "5", "5": "4"}[major]
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    model = build(case.full_config())
    io = record_io(name, case, model)

    (folder / "config.hub.json").write_text(json.dumps(case.full_config(), indent=2) + "\n")
    with tempfile.TemporaryDirectory() as saved:
        model.save_pretrained(saved, max_shard_size=case.max_shard_size)
        shutil.copy(Path(saved) / "config.json", folder / f"config.v{major}.json")
        written, found = read_weights(Path(saved)), read_weights(folder)
        if found:
            check(written.keys() == found.keys(), f"{name}: tensors {sorted(written.keys() ^ found.keys())} differ")
            check(all(np.array_equal(written[key], found[key]) for key in written), f"{name}: the weights differ")
        else:
            for path in [*Path(saved).glob("model*"), *Path(saved).glob("generation_config.json")]:
                shutil.copy(path, folder)
        if case.fused_experts and major == "5":
            model.save_pretrained(saved, save_original_format=False)
            shutil.copy(Path(saved) / "model.safetensors", folder / "fused.safetensors")

    row: Config = {"reads": {}}
    for config in sorted(folder.glob("config.*.json")):
        if major == "5" or config.name != "config.v5.json":  # transformers 4 doesn't know rope_parameters
            row["reads"][config.name] = reload_difference(sorted(folder.glob("model*")), config, io)
    if (folder / "fused.safetensors").exists() and major == "5":
        row["reads"]["fused.safetensors"] = reload_difference([folder / "fused.safetensors"], config, io)
    check(max(row["reads"].values()) <= AGREEMENT, f"{name}: reading back what was written gives {row['reads']}")
    row["max_abs_logit"] = float(np.abs(io["logits"]).max())

    merged, theirs = folder / "io.safetensors", folder / f"io.v{other}.safetensors"
    previous = merged if merged.exists() else theirs
    if previous.exists():
        known = load_file(previous)
        same_tokens = all(np.array_equal(known[key], io[key]) for key in ("tokens", "greedy_prompt", "greedy"))
        difference = float(np.abs(known["logits"] - io["logits"]).max())
        if major == "5":
            row["difference_from_v4"] = difference
        if same_tokens and difference <= AGREEMENT:
            previous.rename(merged)
            return row
        check(previous == theirs, f"{name}: differs from {merged} by {difference}; delete the folder and record again")
    save_file(io, folder / f"io.v{major}.safetensors", {"transformers": transformers.__version__})
    return row


def main() -> None:
    """Record the cases that are named, or all of them."""
    parser = argparse.ArgumentParser(description="Record transformers' logits for tiny random models.")
    parser.add_argument("--out", type=Path, required=True, help="the goldens' folder")
    parser.add_argument("cases", nargs="*", help="names of cases; all of them by default")
    arguments = parser.parse_args()
    major = f"v{transformers.__version__.split('.')[0]}"
    out: Path = arguments.out / "transformers"
    out.mkdir(parents=True, exist_ok=True)
    index_path = out / "cases.json"
    index: Config = json.loads(index_path.read_text()) if index_path.exists() else {}
    for name in arguments.cases or CASES:
        case = CASES[name]
        row = record(name, case, out)
        entry = index.setdefault(name, {})
        entry |= {"model_type": case.model_type, "note": case.note, "by_length": case.by_length}
        entry[major] = {"transformers": transformers.__version__, "torch": torch.__version__, **row}
        print(name, row)
    for path in out.rglob("*.safetensors"):
        path.chmod(0o644)  # safetensors writes files that only their owner can read
    index_path.write_text(json.dumps(dict(sorted(index.items())), indent=2) + "\n")


if __name__ == "__main__":
    main()
