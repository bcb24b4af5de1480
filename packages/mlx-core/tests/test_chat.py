"""A conversation keeps its history in the cache."""

import pytest

from mlx_core import ChatSession, RotatingKVCache, SamplingParams
from mlx_core.errors import InputError
from mlx_core.testing import ScriptedModel, byte_tokenizer

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}<eos>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
TOKENIZER = byte_tokenizer(chat_template=TEMPLATE)


def session(**options):
    model = ScriptedModel([*TOKENIZER.encode("ok"), TOKENIZER.eos_token_id], 0, TOKENIZER.vocab_size)
    return model, ChatSession(model, TOKENIZER, **options)


def say(model, chat, text, **options):
    """Send a message to a model that answers "ok" to it."""
    rendered = TOKENIZER.encode_chat([*chat.messages, {"role": "user", "content": text}])
    model.prompt_length = len(rendered)
    return "".join(chunk.text for chunk in chat.send(text, **options))


def test_each_turn_computes_only_what_is_new():
    model, chat = session(system="be brief")
    assert say(model, chat, "one") == "ok"
    prompt = TOKENIZER.encode_chat([{"role": "system", "content": "be brief"}, {"role": "user", "content": "one"}])
    assert chat.stats.prompt_tokens == len(prompt)
    assert say(model, chat, "two") == "ok"
    # the answer "ok" is in the cache; its end token is not, and neither is the new message
    assert chat.stats.cached_tokens == len(prompt) + 2
    assert chat.stats.prompt_tokens == len(TOKENIZER.encode("<eos><user>two<eos><assistant>"))
    assert [message["content"] for message in chat.messages] == ["be brief", "one", "ok", "two", "ok"]


def test_an_answer_that_is_broken_off_stays_as_far_as_it_came():
    model, chat = session()
    model.prompt_length = len(TOKENIZER.encode_chat([{"role": "user", "content": "one"}]))
    answer = chat.send("one")
    assert next(answer).text == "o"
    answer.close()
    assert chat.messages == [{"role": "user", "content": "one"}, {"role": "assistant", "content": "o"}]
    assert say(model, chat, "two") == "ok"
    assert chat.stats.cached_tokens > 0


def test_a_history_that_changed_is_computed_again_from_where_it_did():
    model, chat = session()
    say(model, chat, "one")
    chat.messages[1]["content"] = "changed"
    model.fed.clear()
    assert say(model, chat, "two") == "ok"
    assert chat.stats.cached_tokens == len(TOKENIZER.encode("<user>one<eos><assistant>"))


def test_a_cache_that_cannot_be_cut_starts_over():
    model, chat = session()
    model.make_cache = lambda: [RotatingKVCache(6) for _ in range(2)]
    chat.reset()
    say(model, chat, "one")
    chat.messages[1]["content"] = "changed"
    assert say(model, chat, "two") == "ok"
    assert chat.stats.cached_tokens == 0


def test_a_turn_that_fails_leaves_the_history_as_it_was():
    model, chat = session(params=SamplingParams(max_tokens=4))
    say(model, chat, "one")
    before = [dict(message) for message in chat.messages]
    model.context_length = 10
    with pytest.raises(InputError, match="context"):
        list(chat.send("a much longer message"))
    assert chat.messages == before
    chat.reset()
    assert chat.messages == []
