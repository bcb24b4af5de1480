"""Answers to several prompts at once are those to each alone."""

import mlx.core as mx
import pytest

from mlx_core.cache import ConcatKeyValueCache, KVCache, quantize_cache
from mlx_core.errors import CacheError, InputError
from mlx_core.generation import BatchGenerate, SamplingParams, generate
from mlx_core.testing import byte_tokenizer, tiny_model

TOKENIZER = byte_tokenizer()
PROMPTS = ["a", "hello there", "what?", "a longer prompt than the others", "a"]
MODELS = {
    "full": tiny_model(vocab_size=TOKENIZER.vocab_size),
    "windowed": tiny_model(vocab_size=TOKENIZER.vocab_size, window=6),
    "dynamic rope": tiny_model(
        vocab_size=TOKENIZER.vocab_size,
        rope_scaling={"rope_type": "dynamic", "factor": 2.0},
        max_position_embeddings=40,
    ),
}
PARAMS = [
    SamplingParams(max_tokens=12),
    SamplingParams(max_tokens=30, temperature=1.0, seed=3, logprobs=1),
    SamplingParams(max_tokens=0),
    SamplingParams(max_tokens=25, temperature=0.9, top_k=9, repetition_penalty=1.2, seed=4),
    SamplingParams(max_tokens=1),
]


def comparable(result):
    logprobs = None if result.logprobs is None else [entry.token for entry in result.logprobs]
    return result.tokens, result.text, result.finish_reason, result.stats.prompt_tokens, logprobs


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("batch_size", [2, 32])
@pytest.mark.parametrize("step", [3, 2048])
def test_each_row_is_what_it_is_alone(model, batch_size, step):
    model = MODELS[model]
    alone = [generate(model, TOKENIZER, prompt, params=p) for prompt, p in zip(PROMPTS, PARAMS, strict=True)]
    together = generate(model, TOKENIZER, PROMPTS, params=PARAMS, batch_size=batch_size, prefill_step_size=step)
    assert [comparable(result) for result in together] == [comparable(result) for result in alone]
    for found, wanted in zip(together[1].logprobs, alone[1].logprobs, strict=True):
        assert found.logprob == pytest.approx(wanted.logprob, abs=1e-4)
    assert together[1].stats.seed == 3


def test_greedy_rows_and_keywords():
    model = MODELS["windowed"]
    ids = [TOKENIZER.encode(prompt) for prompt in PROMPTS]
    alone = [generate(model, TOKENIZER, prompt, max_tokens=20).tokens for prompt in PROMPTS]
    for prompts in (PROMPTS, ids, tuple(PROMPTS), [mx.array(row) for row in ids], [PROMPTS[0], *ids[1:]]):
        assert [result.tokens for result in generate(model, TOKENIZER, prompts, max_tokens=20)] == alone
    sampled = generate(model, TOKENIZER, PROMPTS, max_tokens=20, temperature=1.0, seed=8)
    assert sampled[0].tokens == sampled[4].tokens  # the same prompt and seed
    assert sampled[0].tokens == generate(model, TOKENIZER, PROMPTS[0], max_tokens=20, temperature=1.0, seed=8).tokens
    fresh = generate(model, TOKENIZER, PROMPTS, max_tokens=20, temperature=1.0)
    assert len({result.stats.seed for result in fresh}) == len(fresh)


def test_rows_leave_when_they_end():
    model, widths = MODELS["full"], []

    class Watched:
        vocab_size, context_length, requires_full_prefill = model.vocab_size, None, False
        make_cache = staticmethod(model.make_cache)

        def __call__(self, tokens, cache=None):
            widths.append(tuple(tokens.shape))
            return model(tokens, cache)

    generate(Watched(), None, [[1, 2, 3], [4], [5, 6]], params=[SamplingParams(max_tokens=n) for n in (6, 2, 4)])
    assert widths[0] == (3, 2)  # the prompt, all but its last token
    assert [rows for rows, _ in widths[1:]] == [3, 3, 3, 2, 2, 1]


def test_stop_strings_and_ends_per_row():
    model = MODELS["full"]
    plain = generate(model, TOKENIZER, PROMPTS[1], max_tokens=30, logit_bias={TOKENIZER.eos_token_id: -100.0})
    params = SamplingParams(max_tokens=30, stop=(plain.text[5:8],), logit_bias={TOKENIZER.eos_token_id: -100.0})
    alone = [generate(model, TOKENIZER, prompt, params=params) for prompt in PROMPTS]
    together = generate(model, TOKENIZER, PROMPTS, params=params)
    assert [comparable(result) for result in together] == [comparable(result) for result in alone]
    assert together[1].finish_reason == "stop"


def test_chunks_come_as_they_are_ready_and_closing_ends_them():
    seen = []
    with BatchGenerate(MODELS["full"], TOKENIZER, PROMPTS, params=SamplingParams(max_tokens=6)) as generation:
        for entry in generation:
            seen.append(entry.index)
            if len(seen) == 10:
                break
    assert sorted(seen[:5]) == [0, 1, 2, 3, 4]
    assert list(generation) == []


def test_a_quantised_cache_in_a_batch():
    model = tiny_model(head_dim=32)
    prompts = [[1, 2, 3, 4, 5, 6], [7], [8, 9]]

    def make():
        return quantize_cache(model.make_cache(), bits=8, group_size=32)

    alone = [generate(model, None, prompt, max_tokens=15, cache=make()).tokens for prompt in prompts]
    assert [result.tokens for result in generate(model, None, prompts, max_tokens=15, make_cache=make)] == alone


def test_progress_counts_the_prompts():
    calls = []
    generate(
        MODELS["full"],
        None,
        [[1] * 9, [1] * 4, [1] * 3],
        max_tokens=1,
        batch_size=2,
        prefill_step_size=4,
        on_progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(8, 21), (16, 21), (18, 21), (20, 21), (21, 21)]
    calls.clear()
    params = [SamplingParams(max_tokens=n) for n in (0, 1, 1)]
    prompts = [[1] * 9, [1] * 4, [1] * 3]
    generate(MODELS["full"], None, prompts, params=params, on_progress=lambda *call: calls.append(call))
    assert calls[-1] == (8, 8)  # what is not to be answered isn't computed


def test_bad_batches_are_refused():
    model = MODELS["full"]
    for prompts, options, message in [
        (["a", ""], {}, "prompt 1: the prompt is empty"),
        (["a", [99999]], {}, "prompt 1: token 99999"),
        (["a", 7], {}, "prompt 1"),
        ([[1], ["a"]], {}, "prompt 1"),
        (["a", "b"], {"params": [SamplingParams()]}, "got 1 for 2"),
        (["a"], {"batch_size": 0}, "batch_size"),
        (["a"], {"prefill_step_size": 0}, "prefill_step_size"),
        (["a"], {"temperature": -1}, "temperature"),
    ]:
        with pytest.raises(InputError, match=message):
            generate(model, TOKENIZER, prompts, **options)
    with pytest.raises(CacheError, match="can't be batched"):
        generate(model, TOKENIZER, ["a"], make_cache=lambda: [ConcatKeyValueCache() for _ in model.layers])
    filled = [KVCache() for _ in model.layers]
    model(mx.array([[1, 2]]), filled)
    with pytest.raises(InputError, match="empty"):
        generate(model, TOKENIZER, ["a"], make_cache=lambda: filled)
    with pytest.raises(InputError, match="single prompt"):
        generate(model, TOKENIZER, ["a"], draft=model)


def test_prompts_of_like_length_go_together():
    model, widths = MODELS["full"], []

    class Watched:
        vocab_size, context_length, requires_full_prefill = None, None, False
        make_cache = staticmethod(model.make_cache)

        def __call__(self, tokens, cache=None):
            widths.append(tuple(tokens.shape))
            return model(tokens, cache)

    prompts = [[1] * n for n in (2, 9, 3, 8)]
    generate(Watched(), None, prompts, max_tokens=1, batch_size=2)
    assert [shape for shape in widths if shape[1] > 1] == [(2, 8), (2, 2)]
