"""Real weights against transformers, which read the same GGUF files: scripts/record_golden/real_weights.py."""

import json
import os
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlx_core import DraftModel, MissingCheckpointError, PromptLookup, backend, perplexity, quantize_cache
from qwen3_mlx import demo_model, generate, load, load_model

GOLDENS = Path(__file__).parent / "goldens" / "real_weights"
LONGER = (Path(__file__).parents[1] / "README.md").read_text()
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlx-core"

pytestmark = pytest.mark.weights


def smollm2():
    try:
        return demo_model()
    except MissingCheckpointError:
        pytest.skip("the demonstration weights aren't installed (dependency group `demo`)")


def qwen25_coder():
    path = CACHE / "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"
    if not path.exists():
        pytest.skip("run scripts/fetch_qwen25_coder.py to test Qwen2.5-Coder-1.5B")
    return path


@pytest.fixture(scope="module", params=["smollm2", "qwen2.5-coder"])
def real(request):
    path = {"smollm2": smollm2, "qwen2.5-coder": qwen25_coder}[request.param]()
    model, tokenizer, _ = load(path, dtype="float32", keep_packed=False)
    return model, tokenizer, json.loads((GOLDENS / f"{request.param}.json").read_text())


def test_the_load_report_says_what_became_of_packed_weights():
    with backend.override(keep_packed=False):
        assert "211 packed weights dequantised" in str(load_model(smollm2(), lazy=True).load_report)
    with backend.override(keep_packed=False, dequantize_limit_bytes=2**28):
        model = load_model(smollm2(), lazy=True)
    assert "stay packed: dequantised they would take 0.5 GiB, over the limit of 0.2" in str(model.load_report)
    assert any(hasattr(module, "bits") for module in model.modules())


def test_packed_weights_compute_in_half_precision_and_agree():
    """The settings that GPUs have by default, on this device."""
    with backend.override(compute_dtype="checkpoint", keep_packed=True):
        model, _, _ = load(smollm2())
    assert any(hasattr(module, "bits") for module in model.modules())
    tokens = json.loads((GOLDENS / "smollm2.json").read_text())["text"]["tokens"][:24]
    assert model(mx.array([tokens])).dtype == mx.bfloat16
    full = load(smollm2(), dtype="float32", keep_packed=False)[0]
    assert perplexity(model, tokens).nll == pytest.approx(perplexity(full, tokens).nll, rel=0.02)


def test_tokens_and_rendered_chats(real):
    _, tokenizer, golden = real
    assert tokenizer.encode(golden["text"]["text"]) == golden["text"]["tokens"]
    assert tokenizer.decode(golden["text"]["tokens"]) == golden["text"]["text"]
    for chat in golden["chats"]:
        assert tokenizer.apply_chat_template(chat["messages"]) == chat["rendered"]
        assert tokenizer.encode_chat(chat["messages"]) == chat["prompt"]


def test_logits_and_perplexity(real):
    model, _, golden = real
    tokens = golden["text"]["tokens"]
    logits = np.array(model(mx.array([tokens]))[0, -1])
    found = logits[golden["text"]["last_top_tokens"]]
    # logits of order 20, through up to 30 layers in fp32
    np.testing.assert_allclose(found, golden["text"]["last_top_logits"], atol=1e-3)
    assert perplexity(model, tokens).nll == pytest.approx(golden["text"]["nll"], abs=1e-4)


def test_greedy_continuations(real, request):
    model, tokenizer, golden = real
    for chat in golden["chats"]:
        wanted = chat["greedy"] if "smollm2" in request.node.name else chat["greedy"][:16]  # a large model is slow here
        assert generate(model, tokenizer, chat["prompt"], max_tokens=len(wanted)).tokens == wanted


PROMPTS = [
    "Explain what a KV cache is.",
    "Hi",
    "What is the capital of France? Answer in one word.",
    "Count from 1 to 9.",
]
SETTINGS = {
    "greedy": {},
    "sampled": {"temperature": 0.8, "top_p": 0.9, "seed": 3},
    "penalties": {"temperature": 1.0, "top_k": 20, "repetition_penalty": 1.2, "seed": 5},
}


@pytest.fixture(scope="module")
def smol():
    model, tokenizer, _ = load(smollm2(), dtype="float32", keep_packed=False)
    prompts = [tokenizer.encode_chat([{"role": "user", "content": text}]) for text in PROMPTS]
    alone = {
        name: [generate(model, tokenizer, prompt, max_tokens=12, **settings) for prompt in prompts]
        for name, settings in SETTINGS.items()
    }
    return model, tokenizer, prompts, alone


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_batch_answers_as_one_by_one(smol, settings):
    model, tokenizer, prompts, alone = smol
    together = generate(model, tokenizer, prompts, max_tokens=12, **SETTINGS[settings])
    assert [(r.tokens, r.text, r.finish_reason) for r in together] == [
        (r.tokens, r.text, r.finish_reason) for r in alone[settings]
    ]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("draft", ["lookup", "itself"])
def test_speculation_changes_nothing(smol, settings, draft):
    model, tokenizer, prompts, alone = smol
    for prompt, wanted in zip(prompts[:2], alone[settings], strict=False):
        proposer = PromptLookup(ngram=2) if draft == "lookup" else DraftModel(model, 3)
        result = generate(model, tokenizer, prompt, max_tokens=12, draft=proposer, **SETTINGS[settings])
        assert result.tokens == wanted.tokens
        assert (result.stats.acceptance_rate == 1) == (draft == "itself")


def test_an_eight_bit_cache_costs_no_perplexity(smol):
    model, tokenizer, _, _ = smol
    tokens = tokenizer.encode(LONGER)[:300]
    plain = perplexity(model, tokens).perplexity
    eight, four = (
        perplexity(model, tokens, make_cache=lambda bits=bits: quantize_cache(model.make_cache(), bits=bits)).perplexity
        for bits in (8, 4)
    )
    assert abs(eight / plain - 1) < 0.005
    assert abs(four / plain - 1) > abs(eight / plain - 1)
