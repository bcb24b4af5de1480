"""Speculation changes how fast an answer comes, and nothing else."""

import math
from collections import Counter

import mlx.core as mx
import pytest

from mlx_core.cache import KVCache, RotatingKVCache, quantize_cache
from mlx_core.errors import CacheError, InputError
from mlx_core.generation import DraftModel, Generate, PromptLookup, SamplingParams, SpeculativeGenerate, generate
from mlx_core.testing import byte_tokenizer, tiny_model

PROMPT = [5, 9, 11, 5, 9, 11, 5, 9, 11, 5, 9]
TARGET = tiny_model()
WINDOWED = tiny_model(window=6)


class Wrong:
    """Proposes one token over and over."""

    def start(self, vocab_size):
        return self

    def propose(self, history, limit, sampler):
        return mx.full((min(limit, 3),), 1, mx.int32)


class Right:
    """Proposes a known answer, as far as `good` says."""

    def __init__(self, answer, good, prompt=PROMPT):
        self.answer, self.good, self.prompt = answer, good, prompt

    def start(self, vocab_size):
        return self

    def propose(self, history, limit, sampler):
        done = len(history) - len(self.prompt)
        guesses = self.answer[done : done + min(limit, 5)]
        return mx.array([(g if self.good(done + i) else (g + 1) % 64) for i, g in enumerate(guesses)], dtype=mx.int32)


DRAFTS = {
    "itself": lambda: TARGET,
    "another": lambda: DraftModel(tiny_model(layers=1, seed=3), num_tokens=3),
    "smaller vocabulary": lambda: tiny_model(layers=1, seed=3, vocab_size=50),
    "larger vocabulary": lambda: tiny_model(layers=1, seed=3, vocab_size=80),
    "windowed": lambda: WINDOWED,
    "lookup": PromptLookup,
    "bigram": lambda: PromptLookup(ngram=1, num_tokens=3),
    "wrong": Wrong,
}
SETTINGS = {
    "greedy": {},
    "one": {"max_tokens": 1},
    "none": {"max_tokens": 0},
    "sampled": {"temperature": 1.0, "seed": 4},
    "filtered": {"temperature": 1.3, "top_k": 20, "top_p": 0.9, "min_p": 0.01, "seed": 5},
    "typical": {"temperature": 0.9, "typical_p": 0.8, "xtc_probability": 0.5, "xtc_threshold": 0.05, "seed": 6},
    "penalties": {
        "temperature": 0.8,
        "repetition_penalty": 1.3,
        "presence_penalty": 0.4,
        "frequency_penalty": 0.2,
        "seed": 7,
    },
    "logprobs": {"logprobs": 2, "min_tokens": 20},
}


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("draft", DRAFTS)
@pytest.mark.parametrize("target", [TARGET, WINDOWED], ids=["full", "windowed"])
def test_the_answer_is_the_one_without_a_draft(target, draft, settings):
    options = {"max_tokens": 40, "stop_token_ids": [3], **SETTINGS[settings]}
    plain = generate(target, None, PROMPT, **options)
    result = generate(target, None, PROMPT, draft=DRAFTS[draft](), **options)
    assert result.tokens == plain.tokens
    assert result.finish_reason == plain.finish_reason
    if plain.logprobs is not None:
        assert [entry.token for entry in result.logprobs] == [entry.token for entry in plain.logprobs]
        for found, wanted in zip(result.logprobs, plain.logprobs, strict=True):
            assert found.logprob == pytest.approx(wanted.logprob, abs=1e-4)
    assert 0 <= result.stats.accepted_tokens <= result.stats.drafted_tokens


@pytest.mark.parametrize("kind", ["step", "rotating", "window", "quantized"])
@pytest.mark.parametrize(
    "good", [lambda i: True, lambda i: i % 3 != 2, lambda i: False], ids=["right", "mixed", "wrong"]
)
@pytest.mark.parametrize("length", [1, 2, 7, 23])
def test_rejected_tokens_leave_the_cache(kind, good, length):
    """However an answer ends, the cache goes on as one that never saw a draft."""
    target = WINDOWED if kind == "window" else TARGET

    def make_cache():
        if kind == "quantized":
            return quantize_cache(target.make_cache(), bits=8, group_size=32)
        return [RotatingKVCache(9, keep=2) for _ in target.layers] if kind == "rotating" else target.make_cache()

    if kind == "quantized":
        target = tiny_model(head_dim=32)
    plain_cache, cache = make_cache(), make_cache()
    plain = generate(target, None, PROMPT, max_tokens=30, cache=plain_cache).tokens
    generation = Generate(
        target, None, PROMPT, params=SamplingParams(max_tokens=30), cache=cache, draft=Right(plain, good)
    )
    tokens = [next(generation).token for _ in range(length)]
    generation.close()
    assert tokens == plain[:length]
    assert {layer.offset for layer in cache} == {len(PROMPT) + length - 1}
    rest = generate(target, None, tokens[-1:], max_tokens=30 - length, cache=cache).tokens
    assert rest == plain[length:]


def test_acceptance_is_counted():
    plain = generate(TARGET, None, PROMPT, max_tokens=21).tokens
    right = generate(TARGET, None, PROMPT, max_tokens=21, draft=Right(plain, lambda i: True)).stats
    assert (right.drafted_tokens, right.accepted_tokens, right.acceptance_rate) == (17, 17, 1.0)
    wrong = generate(TARGET, None, PROMPT, max_tokens=21, draft=Right(plain, lambda i: False)).stats
    assert wrong.accepted_tokens == 0 < wrong.drafted_tokens
    assert wrong.acceptance_rate == 0
    itself = generate(TARGET, None, PROMPT, max_tokens=21, draft=TARGET, temperature=1.0, seed=1).stats
    assert itself.acceptance_rate == 1
    assert generate(TARGET, None, PROMPT, max_tokens=21).stats.acceptance_rate == 0


def test_alike_distributions_are_mostly_accepted():
    """A draft draws from the target's own noise: how often they agree depends on how alike they are, not on luck."""
    near = tiny_model()
    noise = 1 + 0.05 * mx.random.normal((64, 1), key=mx.random.key(1))
    near.lm_head.weight = near.lm_head.weight * noise
    stats = [
        generate(TARGET, None, PROMPT, max_tokens=40, draft=near, temperature=1.0, seed=seed).stats for seed in range(5)
    ]
    assert sum(s.accepted_tokens for s in stats) / sum(s.drafted_tokens for s in stats) > 0.8


def test_sampled_tokens_keep_the_distribution():
    """Over many seeds, the second and third token after a prompt come as often as the model's probabilities say."""
    model = tiny_model(vocab_size=8, layers=1, seed=2)
    draft = tiny_model(vocab_size=8, layers=1, seed=9)
    prompt, rounds = [1, 2, 3, 1, 2], 600
    counts: Counter = Counter()
    drafted = accepted = 0
    for seed in range(rounds):
        result = generate(model, None, prompt, max_tokens=3, temperature=0.7, seed=seed, draft=DraftModel(draft, 2))
        counts[tuple(result.tokens[:2])] += 1
        drafted, accepted = drafted + result.stats.drafted_tokens, accepted + result.stats.accepted_tokens
    assert 0 < accepted < drafted  # both ways were taken
    first = mx.softmax(model(mx.array([prompt]))[0, -1] / 0.7)
    chi_square, cells = 0.0, 0
    for a in range(8):
        second = mx.softmax(model(mx.array([[*prompt, a]]))[0, -1] / 0.7)
        for b in range(8):
            wanted = rounds * first[a].item() * second[b].item()
            if wanted > 5:
                chi_square += (counts[a, b] - wanted) ** 2 / wanted
                cells += 1
    assert cells > 10
    assert chi_square < cells + 4 * math.sqrt(2 * cells)  # four standard deviations


def test_lookup_proposes_what_followed():
    proposer = PromptLookup(ngram=3, num_tokens=4).start(None)
    propose = lambda history, limit=9: proposer.propose(history, limit, None).tolist()  # noqa: E731
    assert propose([1, 2, 3, 4, 5]) == []
    assert propose([1, 2, 3, 4, 5, 2, 3]) == [4, 5, 2, 3]
    assert propose([1, 2, 3, 4, 5, 2, 3, 9, 2, 3]) == [9, 2, 3]  # the latest occurrence of the pair
    assert propose([1, 2, 3, 4, 5, 2, 3, 9, 2, 3, 4], 1) == [5]  # but the triple goes before the pair
    assert propose([1, 2, 3, 4, 5, 2, 3, 9, 2, 3, 4, 7]) == []
    same = PromptLookup(ngram=1, num_tokens=2).start(None)
    assert same.propose([7, 7], 5, None).tolist() == [7]


def test_stop_strings_and_ends_inside_a_round():
    tokenizer = byte_tokenizer()
    model = tiny_model(vocab_size=tokenizer.vocab_size)
    plain = generate(model, tokenizer, PROMPT, max_tokens=30, logit_bias={256: -100.0})
    stop = plain.text[8:11]
    for settings in ({"stop": stop}, {"stop_token_ids": plain.tokens[6:7]}):
        cut = generate(model, tokenizer, PROMPT, max_tokens=30, logit_bias={256: -100.0}, **settings)
        draft = Right(plain.tokens, lambda i: True)
        assert cut.finish_reason == "stop"
        result = generate(model, tokenizer, PROMPT, max_tokens=30, logit_bias={256: -100.0}, draft=draft, **settings)
        assert (result.tokens, result.text, result.finish_reason) == (cut.tokens, cut.text, cut.finish_reason)


def test_the_class_and_the_builder_take_a_draft():
    wanted = generate(TARGET, None, PROMPT, max_tokens=12).tokens
    params = SamplingParams(max_tokens=12)
    assert SpeculativeGenerate(TARGET, PromptLookup(), None, PROMPT, params=params).response().ids == wanted
    built = Generate.builder().model(TARGET).prompt(PROMPT).max_tokens(12).draft(TARGET).build()
    assert built.response().ids == wanted
    assert built.stats.acceptance_rate == 1


@pytest.mark.parametrize("draft", [7, object(), "model"])
def test_what_is_no_draft_is_refused(draft):
    with pytest.raises(InputError, match="draft"):
        generate(TARGET, None, PROMPT, draft=draft)


def test_bad_settings_are_refused():
    for make in (lambda: PromptLookup(0), lambda: PromptLookup(3, 0), lambda: DraftModel(TARGET, num_tokens=True)):
        with pytest.raises(InputError):
            make()
    scaling = {"rope_type": "dynamic", "factor": 2.0}
    dynamic = tiny_model(rope_scaling=scaling, max_position_embeddings=16)
    with pytest.raises(InputError, match="length"):
        generate(dynamic, None, PROMPT, draft=PromptLookup())


def test_an_interrupted_round_leaves_a_usable_cache():
    class Breaks:
        def start(self, vocab_size):
            return self

        def propose(self, history, limit, sampler):
            if len(history) > len(PROMPT) + 4:
                raise KeyboardInterrupt
            return mx.array([1, 2], dtype=mx.int32)

    cache = [KVCache() for _ in TARGET.layers]
    generation = Generate(TARGET, None, PROMPT, cache=cache, draft=Breaks())
    with pytest.raises(KeyboardInterrupt):
        list(generation)
    tokens = generation.tokens
    plain = generate(TARGET, None, PROMPT, max_tokens=20).tokens
    assert tokens == plain[: len(tokens)]
    assert {layer.offset for layer in cache} == {len(PROMPT) + len(tokens) - 1}
    assert generate(TARGET, None, tokens[-1:], cache=cache, max_tokens=5).tokens == plain[len(tokens) : len(tokens) + 5]


class Bare:
    """A model that says as little about itself as the protocol allows."""

    vocab_size, context_length, requires_full_prefill = None, None, False

    def __init__(self, model):
        self.model, self.make_cache = model, model.make_cache

    def __call__(self, tokens, cache=None):
        return self.model(tokens, cache)


@pytest.mark.parametrize("token", [64, 10**6, 2**31 - 1, -1])
def test_guesses_outside_the_vocabulary_are_wrong_and_nothing_else(token):
    class Outside:
        def start(self, vocab_size):
            assert vocab_size == 64
            return self

        def propose(self, history, limit, sampler):
            return mx.full((min(limit, 3),), token, mx.int32)

    plain = generate(TARGET, None, PROMPT, max_tokens=12).tokens
    for target in (TARGET, Bare(TARGET)):
        assert generate(target, None, PROMPT, max_tokens=12, draft=Outside()).tokens == plain


@pytest.mark.parametrize("vocab_size", [50, 64, 80])
def test_a_target_that_does_not_tell_its_vocabulary(vocab_size):
    settings = {"max_tokens": 20, "temperature": 1.0, "seed": 3, "logit_bias": {63: 1.0}}
    draft = tiny_model(layers=1, seed=3, vocab_size=vocab_size)
    plain = generate(TARGET, None, PROMPT, **settings).tokens
    assert generate(Bare(TARGET), None, PROMPT, draft=draft, **settings).tokens == plain


def test_a_windowed_draft_computes_each_token_once():
    fed = []

    class Counted(Bare):
        def __call__(self, tokens, cache=None):
            fed.append(tokens.size)
            return self.model(tokens, cache)

    draft = Counted(tiny_model(window=6, layers=2, seed=4))
    stats = generate(TARGET, None, PROMPT, max_tokens=60, draft=DraftModel(draft, 3)).stats
    assert stats.acceptance_rate < 0.5
    assert sum(fed) < len(PROMPT) + 60 + stats.drafted_tokens + 10


def test_a_cache_that_cannot_go_back_is_refused():
    class Stubborn(KVCache):
        def trim(self, n):
            return 0

    with pytest.raises(CacheError, match="without a draft"):
        generate(TARGET, None, PROMPT, cache=[Stubborn() for _ in TARGET.layers], draft=Wrong())


@pytest.mark.parametrize("draft", [None, Wrong])
def test_an_interrupt_never_leaves_tokens_that_nobody_knows(draft):
    """A windowed cache that has dropped tokens can't take back what was on its way: it is emptied rather than kept."""
    for countdown in range(1, 40):
        calls = [countdown]

        class Interrupted(Bare):
            vocab_size = 64

            def __call__(self, tokens, cache=None, calls=calls):
                logits = self.model(tokens, cache)
                calls[0] -= 1
                if calls[0] == 0:
                    raise KeyboardInterrupt
                return logits

        cache = [RotatingKVCache(6) for _ in TARGET.layers]
        generation = Generate(
            Interrupted(TARGET),
            None,
            PROMPT,
            params=SamplingParams(max_tokens=20),
            cache=cache,
            draft=draft and draft(),
        )
        try:
            list(generation)
        except KeyboardInterrupt:
            known = [*PROMPT, *generation.tokens]
            offsets = {layer.offset for layer in cache}
            assert len(offsets) == 1
            (offset,) = offsets
            assert offset in (0, len(known) - 1, len(known))
            rest = known[offset:] or known[-1:]
            if offset < len(known):
                fresh = [RotatingKVCache(6) for _ in TARGET.layers]
                for token in known[:-1]:
                    TARGET(mx.array([[token]]), fresh)
                wanted = TARGET(mx.array([known[-1:]]), fresh)[:, -1]
                assert mx.abs(TARGET(mx.array([rest]), cache)[:, -1] - wanted).max().item() < 1e-4


def test_a_draft_never_reads_beyond_its_own_vocabulary():
    """The target's tokens that the draft lacks: far beyond a small embedding there is no memory to read."""
    target, draft = tiny_model(vocab_size=50_000, layers=1), tiny_model(vocab_size=40, layers=1, seed=3)
    seen = []

    class Watched(Bare):
        vocab_size = 40

        def __call__(self, tokens, cache=None):
            seen.append(tokens.max().item())
            return self.model(tokens, cache)

    prompt = [49_999, 41, 7]
    plain = generate(target, None, prompt, max_tokens=8).tokens
    assert max(plain) >= 40
    assert generate(target, None, prompt, max_tokens=8, draft=Watched(draft)).tokens == plain
    assert max(seen) == 39
