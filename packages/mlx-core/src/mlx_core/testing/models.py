"""Models for tests: a tiny tokenizer, a scripted model, tiny decoders, and the checks of every architecture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from ..cache import BatchKVCache, ConcatKeyValueCache, KeyValueCache, KVCache, RotatingKVCache
from ..config import DecoderConfig
from ..engines import DecoderPlan, describe
from ..models import (
    Attention,
    CausalLM,
    DecoderLayer,
    GatedMLP,
    ModelInput,
    fuse_projections,
    randomize,
    split_parameters,
)
from ..text import Tokenizer
from .interpreter import interpret


def byte_tokenizer(special_tokens: Sequence[str] = ("<eos>",), *, chat_template: str | None = None) -> Tokenizer:
    """A tokenizer with the 256 bytes and then `special_tokens`, the first of which is the end-of-sequence token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = tokenizers.Tokenizer(models.BPE({character: i for i, character in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(list(special_tokens))
    return Tokenizer(
        backend,
        special_tokens={"eos_token": special_tokens[0]},
        chat_templates={"default": chat_template} if chat_template else None,
    )


class ScriptedModel:
    """A LanguageModel that generates `script`: after `prompt_length` tokens, its logits prefer one token after the other.

    Positions come from real caches, which tests can look at; `fed` has the number of tokens of each call.
    """

    context_length = None
    requires_full_prefill = False

    def __init__(self, script: Sequence[int], prompt_length: int, vocab_size: int, n_layers: int = 2) -> None:
        self.script = list(script)
        self.prompt_length = prompt_length
        self.vocab_size = vocab_size
        self.n_layers = n_layers
        self.fed: list[int] = []

    def make_cache(self) -> list[KeyValueCache]:
        return [KVCache(step=8) for _ in range(self.n_layers)]

    def __call__(self, tokens: mx.array, cache: Sequence[KeyValueCache] | None = None) -> mx.array:
        length = tokens.shape[1]
        start = 0 if cache is None else cache[0].offset
        for layer in cache or ():
            column = tokens.astype(mx.float32).reshape(1, 1, length, 1)
            layer.update_and_fetch(column, column)
        self.fed.append(length)
        after = [start + i + 1 - self.prompt_length for i in range(length)]
        wanted = [self.script[min(max(i, 0), len(self.script) - 1)] for i in after]
        return mx.where(mx.arange(self.vocab_size) == mx.array(wanted)[:, None], 5.0, 0.0)[None]


def tiny_model(
    *, vocab_size: int = 64, layers: int = 2, window: int | None = None, seed: int = 0, **config: Any
) -> CausalLM:
    """A decoder with random fp32 weights, small enough for hundreds of steps in a test; its logits are of order 1.

    window: the attention window of every other layer. config: further entries of `DecoderConfig`.
    """
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
    settings = DecoderConfig.from_dict(
        {"model_type": "tiny", "vocab_size": vocab_size, "num_hidden_layers": layers, **sizes, **config}
    )
    rope = settings.rope()
    blocks = [
        DecoderLayer(
            settings,
            Attention(settings, rope, window=window if i % 2 else None),
            GatedMLP(settings.hidden_size, settings.intermediate_size),
        )
        for i in range(layers)
    ]
    return randomize(CausalLM(settings, blocks), seed)


def check_model(make: Callable[[], CausalLM], *, length: int = 24, tolerance: float = 1e-4) -> None:
    """Check a tiny fp32 model for the properties that every architecture must have. Raises AssertionError.

    Shapes and dtype; rows of a batch are independent; logits don't depend on later tokens; prefill and decode through
    each kind of cache, and in a left-padded batch, equal one full pass; fusing projections changes neither the logits
    nor the parameters and their names; the plan alone gives the same logits.
    """
    model = randomize(make())
    vocab_size = model.vocab_size
    tokens = mx.random.randint(0, vocab_size, (2, length), key=mx.random.key(1))
    full = model(tokens)
    assert full.shape == (2, length, vocab_size), full.shape
    assert full.dtype == mx.float32, full.dtype
    _close(model(tokens[1:]), full[1:], tolerance, "a row depends on the others of its batch")
    _close(model(tokens[:, : length // 2]), full[:, : length // 2], tolerance, "a token depends on later ones")

    embedded = model(ModelInput(embeddings=model.embed(tokens)))
    _close(embedded.logits, full, tolerance, "embeddings don't stand for their tokens")
    assert embedded.hidden_states.shape == (2, length, model.config.hidden_size)

    kinds: dict[str, Callable[[], list[KeyValueCache]]] = {
        "make_cache": model.make_cache,
        "ConcatKeyValueCache": lambda: [ConcatKeyValueCache() for _ in model.layers],
        "KVCache": lambda: [KVCache(step=8) for _ in model.layers],
        "RotatingKVCache": lambda: [RotatingKVCache(length, keep=2) for _ in model.layers],
    }
    for name, kind in kinds.items():
        for chunks in ([1] * length, [length - 2, 1, 1], [3, 1, length - 5, 1]):
            cache, parts, start = kind(), [], 0
            for n in chunks:
                parts.append(model(tokens[:, start : start + n], cache))
                start += n
            _close(
                mx.concatenate(parts, axis=1), full, tolerance, f"{name} in chunks of {chunks} differs from a full pass"
            )

    padding = 5
    cache = [BatchKVCache([padding, 0], layer.window) for layer in model.layers]
    padded = mx.concatenate([mx.pad(tokens[:1, : length - padding], [(0, 0), (padding, 0)]), tokens[1:]])
    parts = [model(part, cache) for part in mx.split(padded, [padding + 2, length - 1], axis=1)]
    together = mx.concatenate(parts, axis=1)
    _close(together[:1, padding:], full[:1, : length - padding], tolerance, "a left-padded row of a batch differs")
    _close(together[1:], full[1:], tolerance, "a row beside a left-padded one differs")

    before = split_parameters(model)
    check_plan(model, tokens, full, tolerance)
    fuse_projections(model)
    check_plan(model, tokens, full, tolerance)
    _close(model(tokens), full, tolerance, "fused projections give other logits")
    after = split_parameters(model)
    assert after.keys() == before.keys(), "fusing changes the names of parameters"
    assert all(mx.array_equal(after[name], before[name]) for name in before), "fusing changes parameters"


def check_plan(model: CausalLM, tokens: mx.array, logits: mx.array, tolerance: float = 1e-4) -> None:
    """Check that a model's plan says what its blocks do: a plain interpreter computes its logits from that alone."""
    rebuilt = interpret(describe(model, "", DecoderPlan), split_parameters(model), tokens)
    _close(mx.array(rebuilt.astype("float32")), logits, tolerance, "the plan gives other logits")


def _close(found: mx.array, expected: mx.array, tolerance: float, message: str) -> None:
    error = float(mx.abs(found - expected).max().item())  # type: ignore[arg-type]
    assert error <= tolerance, f"{message} (by {error})"
