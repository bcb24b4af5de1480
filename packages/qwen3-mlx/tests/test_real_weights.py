"""Real weights against transformers, which read the same GGUF files: scripts/record_golden/real_weights.py."""

import json
import os
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlx_core import MissingCheckpointError, backend, perplexity
from qwen3_mlx import demo_model, generate, load, load_model

GOLDENS = Path(__file__).parent / "goldens" / "real_weights"
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
    """What GPUs do by default, on this device."""
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
