"""Text to semantic tokens against the official code, and what a batch, a seed and the guard promise."""

import mlx.core as mx
import numpy as np
import pytest

from gpt_sovits_mlx import T2S, Guard, Sampling, Sentence, generate, stream
from gpt_sovits_mlx.checkpoints.released import read_released
from gpt_sovits_mlx.synthesis.decoding import decode, draw, penalise, probabilities
from gpt_sovits_mlx.synthesis.generation import LoopDetector
from mlx_core.errors import ConfigError, InputError, WeightsError

TOLERANCE = 1e-4  # fp32 on both sides, logits of order 5


@pytest.fixture(scope="module")
def case(golden):
    return golden("t2s")


@pytest.fixture(scope="module")
def released(goldens):
    return read_released(goldens / "t2s/model.ckpt")


@pytest.fixture(scope="module")
def model(released):
    return T2S.from_state_dict(released.config, released.weights)


@pytest.fixture(scope="module")
def ending(released, case):
    """The model whose head ends the golden's sentence after 20 tokens."""
    head = np.array(released.weights["model.ar_predict_layer.weight"])
    head[1024] = case[1]["eos/ar_predict_layer_row"]
    weights = {**released.weights, "model.ar_predict_layer.weight": head}
    return T2S.from_state_dict(released.config, weights)


@pytest.fixture(scope="module")
def sentence(case):
    io = case[1]
    return Sentence(io["phones"][0], io["bert"][0].T, io["prompt"][0])


def cut(sentence, phones):
    return Sentence(sentence.phones[:phones], sentence.bert[:phones], sentence.prompt)


def greedy(**settings):
    return Sampling(top_k=1, **settings)


def test_logits_of_a_prefill_and_of_given_tokens(model, sentence, case):
    io = case[1]
    logits, cache, prompts = model.prefill([sentence])
    assert prompts[0].tolist() == io["prompt"][0].tolist()
    found = [logits]
    for place, token in enumerate(io["tf/tokens"].tolist(), io["prompt"].shape[1]):
        x = model.embed_tokens(mx.array([[token]]), mx.array([[place]]))
        found.append(model.predict(model(x, cache, cache[0].make_mask(1)))[:, -1])
    np.testing.assert_allclose(np.array(logits), io["prefill/logits"], atol=TOLERANCE)
    found = np.array(mx.concatenate(found))
    assert found.shape == tuple(case[0]["shapes"]["tf/logits"])
    np.testing.assert_allclose(found[:, ::4], io["tf/logits"], atol=TOLERANCE)


def test_the_layers_keys_and_values(model, sentence, case):
    _, cache, _ = model.prefill([sentence])
    for held, name in zip(cache[0].state, ("k0", "v0"), strict=True):
        found = np.array(held.transpose(0, 2, 1, 3)).reshape(1, 26, 64)
        np.testing.assert_allclose(found, case[1][f"prefill/{name}"], atol=TOLERANCE)


@pytest.mark.parametrize("run", ["greedy", "greedy_norep", "free"])
def test_greedy_tokens(model, sentence, case, run):
    config, io = case
    penalty = config["runs"][run]["kw"]["repetition_penalty"]
    spoken = Sentence(sentence.phones, sentence.bert) if run == "free" else sentence
    # the official early stop at 40 comes after the 41st token, which its y keeps
    (result,) = generate(model, [spoken], greedy(repetition_penalty=penalty, max_tokens=41))
    assert list(result.tokens) == io[f"{run}/y"][-41:].tolist()
    assert result.verdict == "endless"


def test_the_end_of_a_sentence(ending, sentence, case):
    (result,) = generate(ending, [sentence], greedy())
    assert list(result.tokens) == case[1]["eos/generated"].tolist()
    assert result.verdict == "ok"


def test_a_batch(model, sentence, case):
    config, io = case
    lengths = config["runs"]["batch"]["lens"]
    results = generate(model, [cut(sentence, n) for n in lengths], greedy(max_tokens=40))
    assert [list(result.tokens) for result in results] == [io[f"batch/{i}/generated"].tolist() for i in range(3)]


@pytest.mark.parametrize("sampling", [greedy(max_tokens=60), Sampling(max_tokens=60)])
def test_rows_of_a_batch_end_on_their_own(ending, sentence, sampling):
    longer = Sentence(sentence.phones, sentence.bert, [*sentence.prompt, *range(100, 160)])
    sentences, seeds = [sentence, longer, cut(sentence, 8), Sentence(sentence.phones)], [1, 2, 3, 3]
    alone = [generate(ending, [s], sampling, seed=seed)[0].tokens for s, seed in zip(sentences, seeds, strict=True)]
    together = [result.tokens for result in generate(ending, sentences, sampling, seed=seeds)]
    assert together == alone
    assert len(set(map(len, together))) > 1


@pytest.mark.parametrize("number", range(6))
def test_sampling_probabilities_and_drawn_tokens(case, number):
    config, io = case
    sampling = Sampling(**config["runs"]["sampling"][number])
    seen = np.zeros(io["sampling/logits"].shape, bool)
    np.put_along_axis(seen, io["sampling/prev"], True, axis=1)
    logits = penalise(mx.array(io["sampling/logits"]), mx.array(seen), sampling.repetition_penalty)
    probs = probabilities(logits, sampling)
    np.testing.assert_allclose(np.array(probs), io[f"sampling/{number}/probs"], atol=1e-6)
    tokens = draw(probs, mx.array(io["sampling/exp_noise"]))
    assert tokens.tolist() == io[f"sampling/{number}/token"].tolist()


def test_ties_at_the_border_of_top_k_stay():
    probs = probabilities(mx.array([[3.0, 1.0, 1.0, 0.0]]), Sampling(top_k=2))
    assert (np.array(probs)[0] > 0).tolist() == [True, True, True, False]


def test_a_seed_gives_the_same_tokens_whatever_else_runs(model, sentence):
    sampling = Sampling(max_tokens=30)
    alone = generate(model, [sentence], sampling, seed=5)[0]
    again = generate(model, [sentence], sampling, seed=alone.seed)[0]
    batch = generate(model, [cut(sentence, 9), sentence], sampling, seed=[6, 5])
    other = generate(model, [sentence], sampling, seed=6)[0]
    assert alone.tokens == again.tokens == batch[1].tokens
    assert alone.tokens != other.tokens
    assert generate(model, [sentence], sampling)[0].seed != generate(model, [sentence], sampling)[0].seed


def test_the_global_random_state_stays(model, sentence):
    mx.random.seed(3)
    expected = mx.random.uniform(shape=(4,)).tolist()
    mx.random.seed(3)
    generate(model, [sentence], Sampling(max_tokens=3), seed=1)
    assert mx.random.uniform(shape=(4,)).tolist() == expected


def test_draws_follow_the_distribution(model):
    probs = mx.broadcast_to(mx.array([0.5, 0.3, 0.2]), (20000, 3))
    noise = -mx.log(mx.random.uniform(shape=probs.shape, key=mx.random.key(0)))
    shares = np.bincount(np.array(draw(probs, noise)), minlength=3) / 20000
    np.testing.assert_allclose(shares, [0.5, 0.3, 0.2], atol=0.02)  # 4 deviations are 0.014


@pytest.fixture(scope="module")
def hasty(released):
    """The model with EOS as its best token always."""
    head = np.array(released.weights["model.ar_predict_layer.weight"])
    scale, shift = (np.array(released.weights[f"model.h.layers.2.norm2.{part}"]) for part in ("weight", "bias"))
    # what the norm makes has mean 0 before scale and shift, so this row's logit is the same large number always
    head[1024] = 1000 / scale * np.sign((shift / scale).sum())
    return T2S.from_state_dict(released.config, {**released.weights, "model.ar_predict_layer.weight": head})


def test_no_end_in_the_first_steps(hasty, sentence):
    (result,) = generate(hasty, [sentence], greedy())
    assert len(result.tokens) == 11
    assert result.verdict == "ok"


def test_eos_as_the_best_token_ends_a_sentence_even_if_another_is_drawn(hasty, sentence):
    even = Sampling(top_k=2, temperature=1e6)  # EOS and the next best are drawn as often as each other
    for seed in range(6):
        steps = list(decode(hasty, [sentence], even, [seed]))
        assert len(steps) == 12
        assert steps[-1].ended == {0}
        assert not steps[-1].tokens


def test_the_best_token_stays_whatever_top_p():
    probs = probabilities(mx.array([[1.0, 3.0, 2.0]]), Sampling(top_p=1e-3))
    assert probs.tolist() == [[0, 1, 0]]


@pytest.mark.parametrize("n", [1, 7, 20, 100])
def test_a_stream_is_the_whole(ending, sentence, case, n):
    chunks = list(stream(ending, sentence, greedy(), chunk_tokens=n))
    assert [token for chunk in chunks for token in chunk] == case[1]["eos/generated"].tolist()
    assert all(len(chunk) == n for chunk in chunks[:-1])


def test_chunks_as_the_official_code_cuts_them(ending, sentence, case):
    chunks = list(stream(ending, sentence, greedy(), chunk_tokens=8))
    assert [list(chunk) for chunk in chunks] == [chunk for chunk, _ in case[0]["runs"]["stream_fixed"]["chunks"]]


@pytest.mark.parametrize(
    ("run", "similarity"), [("stream_mute", "mute_sim"), ("stream_synthetic", "mute_sim_synthetic")]
)
def test_cuts_at_silence_repeat_nothing(ending, sentence, case, run, similarity):
    config, io = case
    official = [chunk for chunk, _ in config["runs"][run]["chunks"]]
    quietness = io[f"stream/{similarity}"] - config["runs"][run]["threshold"]
    first, rest = stream(ending, sentence, greedy(), chunk_tokens=8, quietness=quietness)
    assert list(rest) == official[1]  # cut where the official code cuts
    assert list(first) == official[0][: len(first)]  # but what comes after the cut isn't sent twice
    assert [*first, *rest] == io["eos/generated"].tolist()


def test_the_guard_ends_a_loop_and_tries_other_seeds(model, sentence):
    guard = Guard(retries=2, loop_tokens=10, longest_pattern=4)
    sampling = Sampling(top_k=2, temperature=1e-4, max_tokens=400)  # as good as greedy, which is stuck
    (result,) = generate(model, [sentence], sampling, seed=7, guard=guard)
    assert [attempt.seed for attempt in result.attempts] == [7, 8, 9]
    assert {attempt.verdict for attempt in result.attempts} == {"stuck"}
    assert all(len(attempt.tokens) < 60 for attempt in result.attempts)
    assert result.verdict == "stuck"
    # a greedy retry would say the same
    assert len(generate(model, [sentence], greedy(max_tokens=400), guard=guard)[0].attempts) == 1


def test_the_guard_keeps_the_best_attempt_and_leaves_good_rows_alone(ending, sentence):
    enough = Sentence(sentence.phones, sentence.bert, sentence.prompt, target_phones=10)
    swallowed = Sentence(sentence.phones, sentence.bert, sentence.prompt, target_phones=400)
    guard = Guard(retries=1, loop_tokens=300)
    sampling = Sampling(max_tokens=200)
    good, bad = generate(ending, [enough, swallowed], sampling, seed=3, guard=guard)
    assert len(good.attempts) == 1
    assert good.verdict == "ok"
    assert [attempt.seed for attempt in bad.attempts] == [3, 4]
    assert bad.verdict == "short"
    assert bad.tokens == good.tokens


@pytest.mark.parametrize(
    ("tokens", "phones", "ended", "stuck", "verdict"),
    [
        (20, 10, True, False, "ok"),
        (7, 10, True, False, "short"),
        (8, 10, True, False, "ok"),
        (150, 10, True, False, "ok"),
        (151, 10, True, False, "long"),
        (20, 10, False, False, "endless"),
        (20, 10, False, True, "stuck"),
    ],
)
def test_verdicts(tokens, phones, ended, stuck, verdict):
    assert Guard().verdict([0] * tokens, phones, ended=ended, stuck=stuck) == verdict


@pytest.mark.parametrize("pattern", [[5], [1, 2], [1, 2, 3, 1, 2, 4]])
def test_loops_are_found_and_speech_is_not(pattern):
    detector = LoopDetector(20, 6)
    speech = np.random.default_rng(0).integers(0, 30, 200).tolist()
    assert not any(map(detector.add, speech))
    found = [detector.add(token) for token in (pattern * 40)[:40]]
    # the pattern's first time starts the count, though speech may have ended as it begins
    assert len(pattern) + 20 - 3 <= found.index(True) + 1 <= len(pattern) + 20


@pytest.mark.parametrize(
    "bad",
    [
        Sentence([]),
        Sentence([732]),
        Sentence([-1]),
        Sentence([1, 2], np.zeros((3, 1024), np.float32)),
        Sentence([1, 2], None, [1024]),
        Sentence(np.array([1.5])),
    ],
)
def test_bad_sentences(model, bad):
    with pytest.raises(InputError):
        generate(model, [bad])


@pytest.mark.parametrize(
    "bad",
    [{"top_k": 0}, {"top_p": 1.5}, {"temperature": -1}, {"repetition_penalty": 0}, {"max_tokens": 0}, {"top_k": True}],
)
def test_bad_settings(bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        Sampling(**bad)


@pytest.mark.parametrize("seed", [-1, 2**63, 1.5, True, [1, 2]])
def test_bad_seeds(model, sentence, seed):
    with pytest.raises(InputError, match="seed"):
        generate(model, [sentence], seed=seed)


def test_weights_that_do_not_fit(released):
    with pytest.raises(WeightsError, match=r"1 tensors are missing: bert_proj\.bias"):
        T2S.from_state_dict(released.config, {n: w for n, w in released.weights.items() if n != "model.bert_proj.bias"})
    config = {"model": {**released.config["model"], "phoneme_vocab_size": 512}}
    with pytest.raises(WeightsError, match=r"shape \(732, 64\).*\(512, 64\)"):
        T2S.from_state_dict(config, released.weights)
    with pytest.raises(ConfigError, match="head"):
        T2S.from_state_dict({"model": {**released.config["model"], "head": 5}}, released.weights)
