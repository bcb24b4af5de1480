"""Record what transformers computes for the tiny random models of a family.

Run once in an environment with transformers 4.57.6, then once in one with 5.23.0 (each with torch for the CPU):

    python scripts/record_golden/transformers_models.py glm4

The cases stand in `families/`; `README.md` in the package's `tests/goldens` describes the files.

Every tensor is drawn by numpy from its name, so both versions of transformers hold the same weights: the run that finds
weights already there checks that. A case is kept only if it notices what it is there for: each configuration in its
`unlike` must move some logit by `MIN_EFFECT`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import families
import numpy as np
import numpy.typing as npt
import torch
import transformers
from families import BASE, SEED, Case, Config, Floats, ModelType, Tensors, draw
from safetensors.numpy import load_file, save_file

NEW_TOKENS = 16
AGREEMENT = 1e-5  # logits of the two versions that differ by no more are recorded once
MIN_EFFECT = 1e-2  # fifty times the tolerance that the goldens are compared at
MIN_MARGIN = 2e-2  # between the two best logits at each greedy step, and so no rounding decides a token
MIN_ROUTER_GAP = 1e-4  # between the last expert chosen and the first one left out, in probability
LOGIT_RANGE = (3.0, 8.0)

Ints = npt.NDArray[np.int32]


class GoldenError(RuntimeError):
    """A golden that would not be worth recording."""


def check(condition: bool, message: str) -> None:
    """Raise GoldenError unless the condition holds."""
    if not condition:
        raise GoldenError(message)


def full_config(case: Case, spec: ModelType, changes: Config | None = None) -> Config:
    """The config.json of a published checkpoint; `changes` replace entries, or drop them where None."""
    entries = {**BASE, **spec.config, **case.config, **(changes or {})}
    given = {key: value for key, value in sorted(entries.items()) if value is not None}
    return dict(sorted(families.published(case.model_type, spec, given, "float32").items()))


def draw_parameter(name: str, shape: tuple[int, ...], spec: ModelType) -> Floats:
    """As `draw`, but transformers 5 holds experts as `gate_up_proj [E, 2I, H]` and `down_proj [E, H, I]`."""
    stem, _, kind = name.rpartition(".experts.")
    if kind == "down_proj":
        return np.stack([draw(f"{stem}.experts.{i}.down_proj.weight", shape[1:], spec) for i in range(shape[0])])
    if kind == "gate_up_proj":
        half = (shape[1] // 2, shape[2])
        pairs = [
            [draw(f"{stem}.experts.{i}.{part}.weight", half, spec) for part in ("gate_proj", "up_proj")]
            for i in range(shape[0])
        ]
        return np.stack([np.concatenate(pair) for pair in pairs])
    return draw(name, shape, spec)


def build(config: Config, spec: ModelType) -> Any:
    """A model of the reference with drawn weights, for the entries of a config.json."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config))
        parsed = transformers.AutoConfig.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_config(parsed, attn_implementation="eager", dtype=torch.float32)
    with torch.no_grad():
        buffers = [(name, buffer) for name, buffer in model.named_buffers() if name in model.state_dict()]
        for name, parameter in [*model.named_parameters(), *buffers]:
            parameter.copy_(torch.from_numpy(draw_parameter(name, tuple(parameter.shape), spec)))
    return model.eval()


def forward(model: Any, tokens: Ints, **kwargs: Any) -> Any:
    """One full pass, with no cache and with no memory of the lengths that were seen before."""
    text = getattr(model.model, "language_model", model.model)  # inside a model of several modalities
    text.rotary_emb = type(text.rotary_emb)(text.config)
    with torch.no_grad():
        return model(torch.from_numpy(tokens.astype(np.int64)), use_cache=False, **kwargs)


def logits_of(model: Any, tokens: Ints) -> Floats:
    """[B, L] -> [B, L, vocab]."""
    return forward(model, tokens).logits.numpy().astype(np.float32)


def softmax_gap(model: Any, tokens: Ints) -> float:
    """The smallest difference in probability between an expert that is chosen and one that isn't."""
    chosen = model.config.num_experts_per_tok
    layers = forward(model, tokens, output_router_logits=True).router_logits
    best = [torch.softmax(layer.float(), -1).sort(-1, descending=True).values for layer in layers]
    return min((float((p[:, chosen - 1] - p[:, chosen]).min()) for p in best if p.shape[1] > chosen), default=1.0)


def sigmoid_gap(model: Any, tokens: Ints) -> float:
    """The smallest difference in score between an expert that is chosen and one that isn't, and likewise of groups.

    Experts outside the chosen groups count as not there.
    """
    config, gaps = model.config, [1.0]

    def look(router: Any, arguments: tuple[torch.Tensor, ...]) -> None:
        hidden = arguments[0].reshape(-1, config.hidden_size)
        scores = torch.sigmoid(hidden @ router.weight.T) + router.e_score_correction_bias
        groups = scores.reshape(len(scores), config.n_group, -1)
        if config.topk_group < config.n_group:
            best = groups.topk(2, dim=-1).values.sum(-1).sort(-1, descending=True)
            gaps.append(float((best.values[:, config.topk_group - 1] - best.values[:, config.topk_group]).min()))
            left = best.indices[:, config.topk_group :]
            groups = groups.scatter(1, left[..., None].expand(-1, -1, groups.shape[-1]), -torch.inf)
        ranked = groups.reshape(scores.shape).sort(-1, descending=True).values
        k = config.num_experts_per_tok
        if k < ranked.shape[1]:
            gaps.append(float((ranked[:, k - 1] - ranked[:, k]).min()))

    routers = [layer.mlp.gate for layer in model.model.layers if hasattr(layer.mlp, "gate")]
    hooks = [router.register_forward_pre_hook(look) for router in routers]
    forward(model, tokens)
    for hook in hooks:
        hook.remove()
    return min(gaps)


ROUTER_GAPS = {"softmax": softmax_gap, "sigmoid": sigmoid_gap, None: lambda _model, _tokens: 1.0}
"""By how much the experts are chosen."""


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


def record_io(name: str, case: Case, spec: ModelType, model: Any) -> Tensors:
    """Tokens and logits, prompt and continuation; the first that no rounding error can change."""
    router_gap = ROUTER_GAPS[spec.router]
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
        effect = np.abs(logits_of(build(full_config(case, spec, changes), spec), tokens) - logits).max()
        check(effect >= MIN_EFFECT, f"{name}: {changes} changes the logits by {effect} only")
    return {"tokens": tokens, "logits": logits, "greedy_prompt": prompt, "greedy": continuation}


def read_weights(folder: Path, spec: ModelType) -> Tensors:
    """All tensors of the checkpoint in a folder, under the names that they are drawn by."""
    return {
        spec.drawn_name(name): tensor
        for path in folder.glob("model*.safetensors")
        for name, tensor in load_file(path).items()
    }


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


def record(name: str, case: Case, spec: ModelType, out: Path) -> Config:
    """Write one case; return its row of `cases.json`."""
    major = transformers.__version__.split(".")[0]
    other = {"4": "5", "5": "4"}[major]
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    config = full_config(case, spec)
    model = build(config, spec)
    io = record_io(name, case, spec, model)

    (folder / "config.hub.json").write_text(json.dumps(config, indent=2) + "\n")
    with tempfile.TemporaryDirectory() as saved:
        model.save_pretrained(saved, max_shard_size=case.max_shard_size)
        if case.extra_tensors is not None:
            file = Path(saved) / "model.safetensors"
            save_file({**load_file(file), **case.extra_tensors(config)}, file, {"format": "pt"})
        shutil.copy(Path(saved) / "config.json", folder / f"config.v{major}.json")
        written, found = read_weights(Path(saved), spec), read_weights(folder, spec)
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
    for file in sorted(folder.glob("config.*.json")):
        if major == "5" or file.name != "config.v5.json":  # transformers 4 doesn't know rope_parameters
            row["reads"][file.name] = reload_difference(sorted(folder.glob("model*")), file, io)
    if (folder / "fused.safetensors").exists() and major == "5":
        row["reads"]["fused.safetensors"] = reload_difference([folder / "fused.safetensors"], file, io)
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
    """Record the cases that are named on the command line, or all of the family's."""
    parser = argparse.ArgumentParser(description="Record transformers' logits for the tiny random models of a family.")
    parser.add_argument("family", help=f"one of {', '.join(families.names())}")
    parser.add_argument("cases", nargs="*", help="names of cases; all of them by default")
    parser.add_argument("--out", type=Path, help="the goldens' folder; the package's by default")
    arguments = parser.parse_args()
    family = families.find(arguments.family)
    if unknown := set(arguments.cases) - family.CASES.keys():
        parser.error(f"no case {', '.join(sorted(unknown))}; there are: {', '.join(family.CASES)}")
    major = f"v{transformers.__version__.split('.')[0]}"
    out: Path = (arguments.out or families.goldens_folder(arguments.family)) / "transformers"
    out.mkdir(parents=True, exist_ok=True)
    index_path = out / "cases.json"
    index: Config = json.loads(index_path.read_text()) if index_path.exists() else {}
    for name in arguments.cases or family.CASES:
        case = family.CASES[name]
        row = record(name, case, family.MODEL_TYPES[case.model_type], out)
        entry = index.setdefault(name, {})
        entry |= {"model_type": case.model_type, "note": case.note, "by_length": case.by_length}
        entry[major] = {"transformers": transformers.__version__, "torch": torch.__version__, **row}
        print(name, row)
        for path in (out / name).glob("*.safetensors"):
            path.chmod(0o644)  # safetensors writes files that only their owner can read
        index_path.write_text(json.dumps(dict(sorted(index.items())), indent=2) + "\n")


if __name__ == "__main__":
    main()
