"""Perplexity against its definition."""

import itertools
import math

import mlx.core as mx
import numpy as np
import pytest

from mlx_core import perplexity
from mlx_core.errors import InputError


class Bigram:
    """Logits that depend on the last token alone, so windows don't matter."""

    vocab_size, context_length, requires_full_prefill = None, None, False

    def __init__(self, size):
        self.table = np.random.default_rng(0).normal(size=(size, size)).astype(np.float32)

    def make_cache(self):
        return []

    def __call__(self, tokens, cache=None):
        return mx.array(self.table)[tokens]


@pytest.mark.parametrize("window", [1, 2, 7, 100])
def test_is_the_definition(window):
    model = Bigram(11)
    tokens = np.random.default_rng(1).integers(0, 11, 40).tolist()
    logits = model.table.astype(np.float64)
    logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    wanted = -np.mean([logprobs[a, b] for a, b in itertools.pairwise(tokens)])
    found = perplexity(model, tokens, window=window)
    assert found.tokens == 39
    assert found.nll == pytest.approx(wanted, abs=1e-5)
    assert found.perplexity == pytest.approx(math.exp(wanted), rel=1e-5)


def test_too_little_text_is_refused():
    with pytest.raises(InputError, match="two tokens"):
        perplexity(Bigram(3), [1])
    model = Bigram(3)
    model.context_length, model.vocab_size = 8, 3
    for window in (0, 9):
        with pytest.raises(InputError, match="window"):
            perplexity(model, [1, 2], window=window)
    with pytest.raises(InputError, match="token 3"):
        perplexity(model, [1, 3])
    assert perplexity(model, [0, 1] * 20).tokens == 39
