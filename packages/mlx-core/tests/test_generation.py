"""The generation loop, on a model whose answer is known."""

import dataclasses
import random

import mlx.core as mx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_core import Generate, RotatingKVCache, SamplingParams, generate, stream_generate
from mlx_core.errors import CacheError, InputError
from mlx_core.generation.request import StopStrings, encode_prompt
from mlx_core.testing import ScriptedModel, byte_tokenizer, tiny_model
from mlx_core.text import Tokenizer
from mlx_core.text.vocabulary import set_end_tokens

TOKENIZER = byte_tokenizer()
EOS = TOKENIZER.eos_token_id
PROMPT = "hello"


def scripted(text, prompt=PROMPT, **options):
    script = TOKENIZER.encode(text) if isinstance(text, str) else text
    return ScriptedModel([*script, EOS], len(TOKENIZER.encode(prompt)), TOKENIZER.vocab_size, **options)


def held(cache):
    """The tokens that each layer holds."""
    layers = [[] if layer.is_empty else [int(x) for x in layer.state[0].flatten().tolist()] for layer in cache]
    assert all(layer == layers[0] for layer in layers)
    return layers[0]


def test_a_whole_answer():
    result = generate(scripted("fine, thanks"), TOKENIZER, PROMPT)
    assert result.text == "fine, thanks"
    assert result.tokens == [*TOKENIZER.encode("fine, thanks"), EOS]
    assert result.finish_reason == "stop"
    assert result.logprobs is None
    assert result.stats.prompt_tokens == 5
    assert result.stats.generated_tokens == 13
    assert result.stats.prefill_tokens_per_s > 0
    assert result.stats.decode_tokens_per_s > 0


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_max_tokens(n):
    model = scripted("abcdefgh")
    result = generate(model, TOKENIZER, PROMPT, max_tokens=n)
    assert result.text == "abcdefgh"[:n]
    assert len(result.tokens) == n
    assert result.finish_reason == "length"
    assert sum(model.fed) == 5 + max(n - 1, 0) - (n == 0)  # nothing is computed that isn't needed


def test_text_arrives_as_it_becomes_readable():
    text = "a🙂é日\x00b"
    chunks = list(stream_generate(scripted(text), TOKENIZER, PROMPT))
    assert "".join(chunk.text for chunk in chunks) == text
    assert [chunk.text for chunk in chunks] == ["a", "", "", "", "🙂", "", "é", "", "", "日", "\x00", "b", ""]
    assert [chunk.finish_reason for chunk in chunks] == [None] * 12 + ["stop"]


def test_a_broken_character_at_the_end_is_shown():
    tokens = TOKENIZER.encode("é")[:1]
    result = generate(scripted([*TOKENIZER.encode("x"), *tokens]), TOKENIZER, PROMPT)
    assert result.text == "x\ufffd" == TOKENIZER.decode(result.tokens, skip_special_tokens=True)


@pytest.mark.parametrize(
    ("text", "stop", "shown"),
    [
        ("one two three", "two", "one "),
        ("one two three", ["three", "two"], "one "),
        ("one two three", ["e t"], "on"),
        ("ab ab abc", "abc", "ab ab "),
        ("aaab", "aab", "a"),
        ("no such thing", "nothing", "no such thing"),
        ("日本語", "本", "日"),
        ("stop", "stop", ""),
    ],
)
def test_stop_strings_across_tokens_are_never_shown(text, stop, shown):
    chunks = list(stream_generate(scripted(text), TOKENIZER, PROMPT, stop=stop))
    assert "".join(chunk.text for chunk in chunks) == shown
    assert chunks[-1].finish_reason == "stop"
    stopped = shown != text
    assert (chunks[-1].token == EOS) == (not stopped)


def test_what_a_stop_string_held_back_is_shown_at_the_end():
    result = generate(scripted("I say st"), TOKENIZER, PROMPT, stop="stop", max_tokens=8)
    assert (result.text, result.finish_reason) == ("I say st", "length")


@given(
    pieces=st.lists(st.text("ab", max_size=3), max_size=12),
    stops=st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
)
def test_stop_strings_are_found_wherever_the_pieces_end(pieces, stops):
    finder, shown, stopped = StopStrings(stops), "", False
    for piece in pieces:
        text, stopped = finder.feed(piece)
        shown += text
        if stopped:
            break
    if not stopped:
        text, stopped = finder.finish("")
        shown += text
    whole = "".join(pieces)
    # what is found depends on when the text arrived, but never on how it was cut: the first one to be complete
    ends = [at + len(stop) for stop in stops if (at := whole.find(stop)) >= 0]
    assert stopped == bool(ends)
    assert whole.startswith(shown)
    assert not any(stop in shown for stop in stops)
    if not stopped:
        assert shown == whole


def test_stop_tokens_end_an_answer_and_are_not_shown():
    result = generate(scripted("abc!def"), TOKENIZER, PROMPT, stop_token_ids=TOKENIZER.encode("!"))
    assert result.text == "abc"
    assert result.tokens == TOKENIZER.encode("abc!")
    assert result.finish_reason == "stop"


def test_every_end_token_of_the_tokenizer_ends_an_answer():
    ends = Tokenizer(TOKENIZER._backend, special_tokens={"eos_token": "<eos>"}, eos_token_ids=TOKENIZER.encode("!?"))
    for end in "!?":
        result = generate(scripted(f"ab{end}cd"), ends, PROMPT)
        assert (result.text, result.finish_reason) == ("ab", "stop")


def test_a_prompt_that_begins_with_bos_gets_no_second_one():
    backend = byte_tokenizer(("<eos>", "<bos>"))._backend
    set_end_tokens(backend, [backend.token_to_id("<bos>")])
    tokenizer = Tokenizer(backend, special_tokens={"eos_token": "<eos>", "bos_token": "<bos>"})
    plain, rendered = encode_prompt(tokenizer, "hi"), encode_prompt(tokenizer, "<bos>hi")
    assert plain == rendered
    assert plain.count(tokenizer.bos_token_id) == 1


def test_the_next_token_is_queued_before_the_last_is_read():
    model = scripted("abcd")
    generation = Generate(model, TOKENIZER, PROMPT)
    next(generation)
    assert sum(model.fed) == 5 + 1  # the prompt, and the first token already


def test_min_tokens_puts_the_end_off():
    result = generate(scripted("ab"), TOKENIZER, PROMPT, min_tokens=5, max_tokens=8)
    assert len(result.tokens) > 5 - 1
    assert EOS not in result.tokens[:5]


@pytest.mark.parametrize("step", [1, 2, 3, 100])
def test_prefill_in_chunks_reports_progress(step):
    model, seen = scripted("ok"), []
    generate(model, TOKENIZER, PROMPT, prefill_step_size=step, on_progress=lambda *at: seen.append(at))
    assert max(model.fed) <= step
    assert seen[-1] == (5, 5)
    assert [done for done, _ in seen] == [*sorted({min(done, 4) for done in range(step, 4 + step, step)}), 5]


def test_the_cache_all_local_but_the_last_token():
    for stop_after in (1, 3, 20):
        model = scripted("abcdef")
        cache = model.make_cache()
        generation = Generate(model, TOKENIZER, PROMPT, cache=cache)
        with generation:
            for i, _ in enumerate(generation, 1):
                if i == stop_after:
                    break
        assert held(cache) == [*TOKENIZER.encode(PROMPT), *generation.tokens][:-1]
        assert generation.cache == cache


def test_an_answer_can_be_continued():
    model = scripted("abcdef")
    cache = model.make_cache()
    first = generate(model, TOKENIZER, PROMPT, cache=cache, max_tokens=3)
    rest = generate(model, TOKENIZER, first.tokens[-1:], cache=cache)
    assert first.text + rest.text == "abcdef"
    assert rest.stats.cached_tokens == 7


def test_an_exception_between_layers_leaves_the_cache_usable():
    class Failing(ScriptedModel):
        fail_at = 7

        def __call__(self, tokens, cache=None):
            if cache[0].offset == self.fail_at:
                column = tokens.astype(mx.float32).reshape(1, 1, -1, 1)
                cache[0].update_and_fetch(column, column)
                raise KeyboardInterrupt
            return super().__call__(tokens, cache)

    model = Failing([*TOKENIZER.encode("abcdef"), EOS], 5, TOKENIZER.vocab_size)
    cache = model.make_cache()
    generation = Generate(model, TOKENIZER, PROMPT, cache=cache)
    with pytest.raises(KeyboardInterrupt):
        list(generation)
    tokens = [*TOKENIZER.encode(PROMPT), *generation.tokens]
    assert held(cache) == tokens[: len(held(cache))]
    model.fail_at = -1
    rest = generate(model, TOKENIZER, tokens[len(held(cache)) :], cache=cache)
    assert (TOKENIZER.decode(generation.tokens) + rest.text).endswith("cdef")


def test_a_cache_that_dropped_tokens_stays_consistent():
    model = scripted("abcdefghij")
    cache = [RotatingKVCache(4) for _ in range(2)]
    generation = Generate(model, TOKENIZER, PROMPT, cache=cache)
    for _ in range(4):
        next(generation)
    generation.close()
    assert {layer.offset for layer in cache} == {9}


def test_closing_before_the_first_token_changes_nothing():
    model = scripted("abc")
    cache = model.make_cache()
    Generate(model, TOKENIZER, PROMPT, cache=cache).close()
    assert model.fed == []
    assert held(cache) == []


def test_seeds_reproduce_and_leave_global_states_alone():
    model = ScriptedModel([1], 5, TOKENIZER.vocab_size)
    mx.random.seed(11)
    before = [array.tolist() for array in mx.random.state], random.getstate()
    results = [
        generate(model, TOKENIZER, PROMPT, temperature=3.0, max_tokens=20, seed=seed).tokens for seed in (5, 5, 6)
    ]
    fresh = [generate(model, TOKENIZER, PROMPT, temperature=3.0, max_tokens=20) for _ in range(2)]
    with pytest.raises(InputError):
        generate(model, TOKENIZER, PROMPT, top_k=-1)
    assert ([array.tolist() for array in mx.random.state], random.getstate()) == before
    assert results[0] == results[1] != results[2]
    assert fresh[0].tokens != fresh[1].tokens
    again = generate(model, TOKENIZER, PROMPT, temperature=3.0, max_tokens=20, seed=fresh[0].stats.seed)
    assert again.tokens == fresh[0].tokens


def test_a_seed_does_not_depend_on_what_runs_beside_it():
    model = ScriptedModel([1], 5, TOKENIZER.vocab_size)
    alone = generate(model, TOKENIZER, PROMPT, temperature=3.0, max_tokens=12, seed=5).tokens
    one, other = (
        stream_generate(model, TOKENIZER, PROMPT, temperature=3.0, max_tokens=12, seed=seed) for seed in (5, 8)
    )
    together = [(a.token, b.token) for a, b in zip(one, other, strict=True)]
    assert [a for a, _ in together] == alone


def test_logprobs():
    result = generate(scripted("ab"), TOKENIZER, PROMPT, logprobs=2)
    assert [entry.token for entry in result.logprobs] == result.tokens
    for entry in result.logprobs:
        assert entry.top[0] == (entry.token, entry.logprob)
        assert len(entry.top) == 2
        assert entry.logprob == pytest.approx(5 - mx.logsumexp(mx.array([5.0] + [0.0] * 256)).item(), abs=1e-5)


def test_a_sampler_of_ones_own():
    class Last:
        def sample(self, logits, temperature):
            assert temperature == 0.5
            return mx.full((logits.shape[0],), EOS, mx.int32)

    result = generate(scripted("abc"), TOKENIZER, PROMPT, sampler=Last(), temperature=0.5)
    assert result.tokens == [EOS]


def test_the_builder_makes_the_same():
    built = (
        Generate.builder()
        .model(scripted("hey you"))
        .tokenizer(TOKENIZER)
        .prompt(PROMPT)
        .temp(0)
        .max_tokens(4)
        .stop("x")
        .build()
    )
    response = built.response()
    assert response.text == "hey "
    assert response.ids == TOKENIZER.encode("hey ")
    defaults = Generate.builder().model(scripted("a")).prompt([1, 2]).build()
    assert (defaults.params.temperature, defaults.params.max_tokens) == (0.0, 256)
    every = (
        Generate.builder()
        .model(scripted("a"))
        .prompt([1])
        .params(SamplingParams(min_p=0.2))
        .seed(3)
        .top_k(4)
        .top_p(0.5)
        .build()
    )
    assert every.params == SamplingParams(min_p=0.2, seed=3, top_k=4, top_p=0.5)
    with pytest.raises(InputError, match="model"):
        Generate.builder().prompt("x").build()


def test_prompts_of_every_kind():
    ids = TOKENIZER.encode(PROMPT)
    for prompt in (PROMPT, ids, tuple(ids), mx.array(ids), mx.array([ids])):
        assert generate(scripted("yes"), TOKENIZER, prompt).text == "yes"
    assert generate(scripted("yes"), None, ids, stop_token_ids=[EOS]).text == ""


@pytest.mark.parametrize(
    "prompt", ["", [], (), [1.5], [True], [1, "a"], [["a"]], [-1], [10_000], None, mx.zeros((2, 3), mx.int32), 7, b"ab"]
)
def test_bad_prompts_are_refused(prompt):
    with pytest.raises(InputError):
        generate(scripted("yes"), TOKENIZER, prompt)


def test_bad_settings_are_refused():
    model = scripted("yes")
    with pytest.raises(InputError, match="temprature"):
        generate(model, TOKENIZER, PROMPT, temprature=1.0)
    with pytest.raises(InputError, match="temperature"):
        generate(model, TOKENIZER, PROMPT, temperature=float("nan"))
    with pytest.raises(InputError, match="prefill_step_size"):
        generate(model, TOKENIZER, PROMPT, prefill_step_size=0)
    with pytest.raises(InputError, match="tokenizer"):
        generate(model, None, [1], stop="x")
    with pytest.raises(InputError, match="tokenizer"):
        generate(model, None, "text")
    assert model.fed == []


def test_layers_that_disagree_are_refused():
    model = scripted("yes")
    cache = model.make_cache()
    column = mx.zeros((1, 1, 2, 1))
    cache[0].update_and_fetch(column, column)
    with pytest.raises(CacheError, match="different numbers"):
        generate(model, TOKENIZER, PROMPT, cache=cache)


def test_the_context_is_a_limit():
    model = scripted("abcdefgh")
    model.context_length = 8
    result = generate(model, TOKENIZER, PROMPT)
    assert (result.text, result.finish_reason) == (
        "abcd",
        "length",
    )  # positions 5, 6, 7, and one that needs no position
    with pytest.raises(InputError, match="context holds 8"):
        generate(model, TOKENIZER, "hello, you")


def test_params_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SamplingParams().temperature = 1.0


THINKING = byte_tokenizer(["<eos>", "<think>", "</think>"])


@pytest.mark.parametrize("budget", [0, 1, 5, 40])
@pytest.mark.parametrize("opened_by", ["prompt", "answer"])
@pytest.mark.parametrize("how", ["alone", "batch", "draft"])
def test_a_thinking_budget_closes_the_block_and_the_answer_goes_on(budget, opened_by, how):
    model = tiny_model(vocab_size=THINKING.vocab_size)
    opening, closing = THINKING.token_id("<think>"), THINKING.token_id("</think>")
    bias = {closing: -100.0, THINKING.eos_token_id: -100.0, opening: -100.0}
    prompt = [5, 6, 7]
    if opened_by == "prompt":
        prompt = [5, closing, opening, 7]
    settings = {"max_tokens": 30, "thinking_budget": budget, "logit_bias": bias, "temperature": 1.0, "seed": 2}
    if opened_by == "answer":
        settings["logit_bias"] = bias | {opening: 100.0}
        settings["frequency_penalty"] = 300.0  # once
    if how == "batch":
        result = generate(model, THINKING, [prompt, [9, 9, 9, 9, 9, 9]], **settings)[0]
    else:
        result = generate(model, THINKING, prompt, draft=model if how == "draft" else None, **settings)
    start = 0 if opened_by == "prompt" else 1
    assert (opening in result.tokens) == (opened_by == "answer")
    if start + budget < 30:
        assert result.tokens.index(closing) == start + budget
        assert result.tokens.count(closing) == 1
        assert len(result.tokens) == 30
    else:
        assert closing not in result.tokens
    free = generate(model, THINKING, prompt, **(settings | {"thinking_budget": None}))
    assert free.tokens[: start + budget] == result.tokens[: start + budget]


def test_a_thinking_budget_needs_marks():
    with pytest.raises(InputError, match="single tokens"):
        generate(scripted("a"), TOKENIZER, PROMPT, thinking_budget=3)
    with pytest.raises(InputError, match="thinking_budget"):
        generate(scripted("a"), TOKENIZER, PROMPT, thinking_budget=-1)
