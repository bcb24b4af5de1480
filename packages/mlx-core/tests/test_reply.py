"""Replies in parts: round trips through real chat templates, and the same parts however the text is cut."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_core import InputError, Tokenizer
from mlx_core.text import InvalidToolCall, Reply, ReplyParser, TextDelta, ThinkingDelta, parse_reply, tool_message
from mlx_core.text.chat_template import render_chat
from mlx_core.text.delimiters import find_delimiter
from mlx_core.text.formats import (
    CallSyntax,
    ReplyFormat,
    ToolCall,
    register_format,
    reply_format,
    reply_formats,
    tool_properties,
)

pytestmark = pytest.mark.text

GOLDENS = Path(__file__).parent / "goldens"
TEMPLATES = {
    path.stem: path.read_text(encoding="utf-8")
    for path in sorted([*(GOLDENS / "reply").glob("*.jinja"), *(GOLDENS / "tokenizer" / "templates").glob("*.jinja")])
}
# What GLM-4-0414's template does with the parts of a conversation, in our words.
TEMPLATES["glm-4-0414"] = (
    "[gMASK]<sop>{% for message in messages %}"
    "{% set role = 'observation' if message.role == 'observation' else message.role %}"
    "<|{{ role }}|>{{ message.get('metadata', '') }}\n{{ message.content }}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SCHEMA = {
    "text": {"type": "string", "description": "any"},
    "count": {"type": "integer"},
    "ratio": {"type": "number"},
    "sure": {"type": "boolean"},
    "options": {"type": "object"},
    "items": {"type": "array"},
    "either": {"type": ["string", "null"]},
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "search",
            "description": "Look something up.",
            "parameters": {"type": "object", "properties": SCHEMA, "required": ["text"]},
        },
    },
    {"type": "function", "function": {"name": "no_arguments", "description": "Nothing to say.", "parameters": {}}},
]
USER = {"role": "user", "content": "Hello"}
ENDS = re.compile(r"(<\|im_end\|>\n?|</s>)\Z")
FORMATS = {
    "features": ("plain", "<think>"),
    "glm-4-0414": ("glm-4", None),
    "glm-4.6": ("glm-4.5", "<think>"),
    "glm-4.7-flash": ("glm-4.5", "<think>"),
    "ministral-3": ("mistral", "[THINK]"),
    "mistral-nemo": ("mistral", None),
    "qwen2.5": ("hermes", None),
    "qwen3": ("hermes", "<think>"),
    "qwen3-coder": ("qwen3-coder", None),
    "qwen3.5": ("qwen3-coder", "<think>"),
    "smollm2": ("plain", None),
}
CALLING = sorted(name for name, (format_name, _) in FORMATS.items() if format_name != "plain")


def rendered(template, messages, **options):
    return render_chat(TEMPLATES[template], messages, tools=TOOLS, bos_token="<s>", eos_token="</s>", **options)


def written_and_read(template, reply):
    """The reply as the template writes it after its generation prompt, and what is read of that."""
    form = reply_format(TEMPLATES[template])
    prompt = rendered(template, form.messages([USER]))
    whole = rendered(template, form.messages([USER, reply.to_message()]), add_generation_prompt=False)
    shared = next(at for at in range(len(whole) + 1) if at == len(prompt) or prompt[at] != whole[at])
    thinking_open = shared == len(prompt) and form.opens_thinking(prompt)
    text = ENDS.sub("", whole[shared:])
    return text, parse_reply(text, format=form, tools=TOOLS, thinking_open=thinking_open)


def events_of(text, pieces=None, **options):
    """The events of a reply in pieces (one by default), with neighbouring deltas joined."""
    parser = ReplyParser(**options)
    events = [event for piece in (pieces or [text]) for event in parser.feed(piece)] + parser.finish()
    joined = []
    for event in events:
        if isinstance(event, TextDelta | ThinkingDelta) and joined and type(joined[-1]) is type(event):
            joined[-1] = type(event)(joined[-1].text + event.text)
        else:
            joined.append(event)
    return joined, parser.reply


def calls_of(reply):
    return [(call.name, call.arguments) for call in reply.tool_calls]


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_format_shows_in_the_template(template):
    form = reply_format(TEMPLATES[template])
    assert (form.name, form.thinking[0] if form.thinking else None) == FORMATS[template]


HARD = {"text": 'line\nbreak \\ "quoted" é 😀 {"j": [1]}', "count": -3, "ratio": 2.5, "sure": True}
DEEP: dict[str, Any] = {"text": "5", "options": {"a": {"b": [1, {"c": None}]}, "d": "}{"}, "items": [], "either": None}


@pytest.mark.parametrize("template", CALLING)
@pytest.mark.parametrize(
    "calls",
    [
        [("search", HARD)],
        [("search", DEEP)],
        [("search", {"text": " spaces \n"}), ("no_arguments", {}), ("search", {"text": "", "sure": False})],
    ],
)
@pytest.mark.parametrize("text", ["", "Let me see.\n\nThis way."])
def test_calls_come_back_from_a_real_template(template, calls, text):
    thinks = FORMATS[template][1] == "<think>"
    speaks = template != "mistral-nemo"  # its template writes no text beside calls
    thought = "First this.\n\nThen that." if thinks else ""
    reply = Reply(
        text if speaks else "", thought, tuple(ToolCall(*call, f"call{i:05d}") for i, call in enumerate(calls))
    )
    _, read = written_and_read(template, reply)
    assert read == reply


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(st.dictionaries(st.text(), json_values, max_size=4), min_size=1, max_size=3))
@settings(max_examples=150, deadline=None)
def test_any_json_comes_back_from_a_template_of_json(arguments):
    reply = Reply("", "", tuple(ToolCall("search", values, f"call{i:05d}") for i, values in enumerate(arguments)))
    _, read = written_and_read("qwen3", reply)
    assert calls_of(read) == calls_of(reply)
    assert read.invalid_tool_calls == ()


@pytest.mark.parametrize("template", ["glm-4.6", "qwen3-coder"])
@given(
    arguments=st.fixed_dictionaries(
        {"text": st.text().filter(lambda text: "</arg_value>" not in text and "</parameter>" not in text)},
        optional={
            "count": st.integers(-(2**70), 2**70),
            "ratio": st.floats(allow_nan=False, allow_infinity=False),
            "sure": st.booleans(),
            "options": st.dictionaries(st.text(), json_values, max_size=3),
            "items": st.lists(json_values, max_size=3),
        },
    )
)
@settings(max_examples=100, deadline=None)
def test_values_come_back_by_their_schema_from_a_template_of_tags(template, arguments):
    delimiters = ("</tool_call>", "</arg_value>", "</parameter>")
    if any(delimiter in json.dumps(arguments, ensure_ascii=False) for delimiter in delimiters[1:]):
        return
    _, read = written_and_read(template, Reply("", "", (ToolCall("search", arguments, "call00000"),)))
    assert calls_of(read) == [("search", arguments)]


PIECES = [
    *("\n", "\n\n", " ", "a", "said", "é", '"', "\\", '\\"', "{", "}", "<", "</", "<t", "[", "]"),
    *("<think>", "</think>", "[THINK]", "[/THINK]", "<tool_call>", "</tool_call>", "</tool", "<|assistant|>"),
    *(
        '{"name": "search", "arguments": {"text": "</tool_call>"}}',
        '{"text": "}"}',
        "search",
        "\nsearch\n{",
        "no_arguments",
    ),
    *("<arg_key>text</arg_key>", "<arg_value>", "</arg_value>", "<function=search>", "</function>", "<parameter=text>"),
    *("</parameter>", "[TOOL_CALLS]", "[ARGS]", '[TOOL_CALLS][{"name": "search", "arguments": {}}]', "[CALL_ID]"),
]
texts = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)
GIVEN_FORMATS = ["plain", "hermes", "qwen3-coder", "glm-4.5", "glm-4", "mistral"]


@pytest.mark.parametrize("name", GIVEN_FORMATS)
@given(text=texts, data=st.data())
@settings(max_examples=150, deadline=None)
def test_the_parts_are_the_same_however_the_text_is_cut(name, text, data):
    options = {
        "format": name,
        "tools": data.draw(st.sampled_from([None, [], TOOLS])),
        "thinking_open": data.draw(st.booleans()),
    }
    whole, reply = events_of(text, **options)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=12)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert events_of(text, pieces, **options) == (whole, reply)
    assert events_of(text, list(text) or [""], **options) == (whole, reply)
    assert "".join(event.text for event in whole if isinstance(event, TextDelta)) == reply.text
    assert "".join(event.text for event in whole if isinstance(event, ThinkingDelta)) == reply.thinking
    assert tuple(event for event in whole if isinstance(event, ToolCall)) == reply.tool_calls
    assert tuple(event for event in whole if isinstance(event, InvalidToolCall)) == reply.invalid_tool_calls


def refuse(text, tools):
    raise ValueError("refused")


@pytest.mark.parametrize("name", GIVEN_FORMATS)
@given(text=texts, thinking_open=st.booleans())
@settings(max_examples=150, deadline=None)
def test_nothing_is_lost(name, text, thinking_open):
    form = reply_format(None, name)
    form = replace(form, calls=form.calls and replace(form.calls, read=refuse))
    events, _ = events_of(text, format=form, tools=TOOLS, thinking_open=thinking_open)
    compact = text.replace("\n", "")
    rest = "".join(
        event.raw if isinstance(event, InvalidToolCall) else event.text
        for event in events
        if not isinstance(event, ThinkingDelta)
    ).replace("\n", "")
    thought = "".join(event.text for event in events if isinstance(event, ThinkingDelta)).replace("\n", "")
    # Thinking comes first: blocks that end with the closing delimiter, and begin with the opening one or in the prompt.
    assert compact.endswith(rest)
    opening, closing = form.thinking
    *blocks, last = compact.removesuffix(rest).split(closing)
    if last or (thinking_open and not blocks):
        blocks.append(last)
    opened = blocks[:1] if thinking_open else []
    assert all(block.startswith(opening) for block in blocks[len(opened) :])
    assert "".join(opened + [block.removeprefix(opening) for block in blocks[len(opened) :]]) == thought


@given(text=texts)
@settings(max_examples=200, deadline=None)
def test_only_what_may_begin_a_delimiter_is_held_back(text):
    parser = ReplyParser("hermes")
    seen = ""
    for character in text:
        seen += character
        parser.feed(character)
        reply = parser.reply
        if "<think>" in seen or "<tool_call>" in seen:
            break
        held = seen.lstrip("\n").removeprefix(reply.text).lstrip("\n")
        assert any(delimiter.startswith(held) for delimiter in ("<think>", "<tool_call>"))


def test_text_is_shown_at_once():
    parser = ReplyParser("hermes")
    shown = [parser.feed(piece) for piece in ("\n", "a", "\n", "<", "b", "<tool", "x")]
    assert shown == [[], [TextDelta("a")], [], [], [TextDelta("\n<b")], [], [TextDelta("<toolx")]]
    assert parser.finish() == []


def test_a_call_comes_when_it_is_complete():
    parser = ReplyParser("hermes")
    assert parser.feed('<tool_call>\n{"name": "search", "arguments": {"text": "a"}}\n</tool_call') == []
    assert parser.feed(">") == [ToolCall("search", {"text": "a"}, "call00000")]
    assert parser.feed("\n\nDone.") == [TextDelta("Done.")]
    assert parser.finish() == []


def test_text_stands_before_between_and_after_calls():
    call = '<tool_call>\n{"name": "no_arguments"}\n</tool_call>'
    events, reply = events_of(f"One.\n{call}\nTwo.\n\n{call}{call}\n\nThree.\n", format="hermes")
    kinds = [event.text if isinstance(event, TextDelta) else event.id for event in events]
    assert kinds == ["One.", "call00000", "\nTwo.", "call00001", "call00002", "\n\nThree.\n"]
    assert reply.text == "One.\nTwo.\n\nThree.\n"


@pytest.mark.parametrize(
    ("text", "said", "thought"),
    [
        ("<think>\nHm.\n</think>\n\nYes.", "Yes.", "Hm."),
        ("\n<think></think>\nYes.", "Yes.", ""),
        ("<think>Hm.", "", "Hm."),
        ("<think>a\n</think>\n<think>\nb</think>c", "c", "a\nb"),
        ("Yes. <think> is a tag, </think> too.", "Yes. <think> is a tag, </think> too.", ""),
        ("</think>Yes.", "</think>Yes.", ""),
        ("<think>A <tool_call> now?</think>Yes.", "Yes.", "A <tool_call> now?"),
        ("<thin", "<thin", ""),
        ("\n\n", "", ""),
    ],
)
def test_thinking(text, said, thought):
    assert parse_reply(text, format="hermes") == Reply(said, thought)


def test_thinking_alone():
    assert parse_reply("<think>\nHm.\n</think>\n\nYes.", format="plain") == Reply("Yes.", "Hm.")


@pytest.mark.parametrize("call", ['{"name": "f"}', "x"])
def test_after_a_call_delimiters_of_thinking_are_text(call):
    reply = parse_reply(f"<tool_call>{call}</tool_call>\n<think>Hm.", format="hermes")
    assert (reply.text, reply.thinking) == ("<think>Hm.", "")


def test_a_reply_may_begin_in_an_open_block():
    assert parse_reply("\nHm.\n</think>\n\nYes.", format="hermes", thinking_open=True) == Reply("Yes.", "Hm.")
    with pytest.raises(InputError, match="no thinking block"):
        ReplyParser(reply_format(TEMPLATES["qwen2.5"]), thinking_open=True)


@pytest.mark.parametrize(
    ("template", "variables", "opens"),
    [
        ("qwen3", {}, False),
        ("qwen3", {"enable_thinking": False}, False),
        ("qwen3.5", {}, True),
        ("qwen3.5", {"enable_thinking": False}, False),
        ("glm-4.6", {}, False),
        ("glm-4.7-flash", {}, True),
        ("glm-4.7-flash", {"enable_thinking": False}, False),
        ("qwen2.5", {}, False),
    ],
)
def test_a_prompt_says_whether_thinking_is_open(template, variables, opens):
    messages = [{"role": "user", "content": "What is <think>\n?"}]
    prompt = rendered(template, messages, **variables)
    assert reply_format(TEMPLATES[template]).opens_thinking(prompt) is opens


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("hermes", '<tool_call>{"name": "f", "arguments": {"a": 1,}}</tool_call>', "invalid JSON"),
        ("hermes", "<tool_call>\n</tool_call>", "invalid JSON"),
        ("hermes", "<tool_call>[]</tool_call>", "must be a JSON object"),
        ("hermes", "<tool_call>1</tool_call>", "must be a JSON object"),
        ("hermes", '<tool_call>{"arguments": {}}</tool_call>', "needs the name of a tool"),
        ("hermes", '<tool_call>{"name": "f g"}</tool_call>', "needs the name of a tool"),
        ("hermes", '<tool_call>{"name": "f", "arguments": [1]}</tool_call>', "must be a JSON object"),
        ("hermes", '<tool_call>{"name": "f", "arguments": "{"}</tool_call>', "invalid JSON"),
        ("hermes", '<tool_call>{"name": "f", "arguments": {"a": NaN}}</tool_call>', "can't be written as JSON"),
        ("hermes", '<tool_call>{"name": "f", "arguments": {"a": 1e999}}</tool_call>', "can't be written as JSON"),
        ("hermes", '<tool_call>{"name": "f", "arguments": {"a": "\\ud800"}}</tool_call>', "can't be written as JSON"),
        ("hermes", "<tool_call>" + "[" * 100_000 + "</tool_call>", "nested too deeply"),
        ("hermes", '<tool_call>{"name": "f", "arguments": {"a": "b}}\n</tool_call>', "invalid JSON"),
        ("hermes", '<tool_call>{"name": "f", "arguments": {}}', "unfinished"),
        ("hermes", "<tool_call>", "unfinished"),
        ("glm-4.5", "<tool_call>f<arg_key>a</arg_key>", "unfinished"),
        ("glm-4.5", "<tool_call>f<arg_key>a</arg_key></tool_call>", "<arg_value> is missing"),
        ("glm-4.5", "<tool_call>f<arg_key>a</tool_call>", "</arg_key> is missing"),
        ("glm-4.5", "<tool_call>f<arg_key>a</arg_key><arg_value>1</arg_value>b</tool_call>", "ends here"),
        ("glm-4.5", "<tool_call>\n</tool_call>", "needs the name of a tool"),
        ("qwen3-coder", "<tool_call>f</tool_call>", "<function= is missing"),
        ("qwen3-coder", "<tool_call><function=f></tool_call>", "</function> is missing"),
        ("qwen3-coder", "<tool_call><function=f></function>x</tool_call>", "ends here"),
        ("qwen3-coder", "<tool_call><function=f></tool_call", "unfinished"),
        ("glm-4", 'search\n{"text": 1', "unfinished"),
        ("glm-4", 'search\n{"text"}', "invalid JSON"),
        ("mistral", '[TOOL_CALLS][{"name": "f", "argum', "invalid JSON"),
        ("mistral", "[TOOL_CALLS]f{}", r"must be name\[ARGS\]"),
        ("mistral", '[TOOL_CALLS]f[ARGS]{"a"', "invalid JSON"),
    ],
)
def test_calls_that_cannot_be_read_are_kept(name, text, reason):
    reply = parse_reply("So:\n" + text, format=name, tools=TOOLS if name == "glm-4" else None)
    (kept,) = reply.invalid_tool_calls
    assert kept.raw == text
    assert re.search(reason, kept.reason)
    assert (reply.text, reply.tool_calls) == ("So:", ())
    assert reply.to_message() == {"role": "assistant", "content": "So:\n" + text}


def test_a_bad_call_spares_the_others():
    good = '<tool_call>{"name": "search", "arguments": {"text": "%s"}}</tool_call>'
    reply = parse_reply(f"{good % 1}<tool_call>x</tool_call>{good % 2}", format="hermes")
    assert [call.arguments["text"] for call in reply.tool_calls] == ["1", "2"]
    assert [call.raw for call in reply.invalid_tool_calls] == ["<tool_call>x</tool_call>"]


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ('{"name": "f", "arguments": {"a": "</tool_call>\\"{"}}', [("f", {"a": '</tool_call>"{'})]),
        ('{"name": "f", "arguments": "{\\"a\\": 1}"}', [("f", {"a": 1})]),
        ('{"name": "f", "arguments": null}', [("f", {})]),
        ('{"name": "f", "parameters": {"a": 1}}', [("f", {"a": 1})]),
        ('{"name": "f", "arguments": {"a": 1, "a": 2}}', [("f", {"a": 2})]),
        ('{"name": "f", "arguments": {"a": "two\nlines"}}\n', [("f", {"a": "two\nlines"})]),
        ('[{"name": "f"}, {"name": "g"}]', [("f", {}), ("g", {})]),
    ],
)
def test_json_calls(text, calls):
    assert calls_of(parse_reply(f"<tool_call>{text}</tool_call>", format="hermes")) == calls


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"type": "string"}, "5", "5"),
        ({"type": "string"}, "null", "null"),
        ({"type": "integer"}, "5", 5),
        ({"type": "integer"}, "5.0", 5),
        ({"type": "integer"}, "5.5", "5.5"),
        ({"type": "integer"}, "five", "five"),
        ({"type": "number"}, "5", 5),
        ({"type": "number"}, "NaN", "NaN"),
        ({"type": "boolean"}, "true", True),
        ({"type": "boolean"}, "True", True),
        ({"type": "boolean"}, "1", "1"),
        ({"type": "object"}, '{"a": [1]}', {"a": [1]}),
        ({"type": "array"}, "[1, 2", "[1, 2"),
        ({"type": ["integer", "string"]}, "5", 5),
        ({"type": ["integer", "string"]}, "True", "True"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "null", None),
        ({"anyOf": [{"type": "string"}, {"$ref": "#/x"}]}, "5", 5),
        ({"enum": ["1", "2"]}, "1", "1"),
        ({"const": 1}, "1", 1),
        ({}, "5", 5),
        ({}, "007", "007"),
        ({}, '"a"', '"a"'),
        ({}, "1" * 5000, "1" * 5000),
        ({}, "[" * 100_000, "[" * 100_000),
        (None, "1e3", 1000.0),
        (None, " a\n", " a\n"),
        (None, "True", "True"),
    ],
)
def test_values_between_tags(schema, text, value):
    tools = [{"name": "f", "parameters": {"properties": {"a": schema} if schema is not None else {}}}]
    reply = parse_reply(
        f"<tool_call>f<arg_key>a</arg_key><arg_value>{text}</arg_value></tool_call>", format="glm-4.5", tools=tools
    )
    (call,) = reply.tool_calls
    assert call.arguments == {"a": value}
    assert type(call.arguments["a"]) is type(value)


def test_qwen3_coder_writes_values_as_python_does():
    text = "<tool_call>\n<function=f>\n" + "".join(
        f"<parameter={key}>\n{value}\n</parameter>\n"
        for key, value in [("a", "True"), ("b", "None"), ("c", "\nx\n"), ("d", "2")]
    )
    (call,) = parse_reply(text + "</function>\n</tool_call>", format="qwen3-coder").tool_calls
    assert call.arguments == {"a": True, "b": None, "c": "\nx\n", "d": 2}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("glm-4.5", "<tool_call>f<arg_key>a</arg_key><arg_value>%s</arg_value></tool_call>"),
        ("qwen3-coder", "<tool_call><function=f><parameter=a>%s</parameter></function></tool_call>"),
    ],
)
def test_a_value_may_hold_the_closing_delimiter(name, text):
    (call,) = parse_reply(text % "x</tool_call>y", format=name).tool_calls
    assert call.arguments == {"a": "x</tool_call>y"}


def test_glm_falls_back_on_json():
    (call,) = parse_reply('<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>', format="glm-4.5").tool_calls
    assert (call.name, call.arguments) == ("f", {"a": 1})


@pytest.mark.parametrize(
    ("text", "said", "calls"),
    [
        ('search\n{"text": "a}b{\\"}"}', "", ["search"]),
        ('\nsearch\n{"text": "a"}\nno_arguments\n{}', "", ["search", "no_arguments"]),
        ('search\n{"text": "a"}no_arguments\n{}', "", ["search", "no_arguments"]),
        ('search\n{"text": "a"}<|assistant|>no_arguments\n{}', "", ["search", "no_arguments"]),
        ('\nI look.<|assistant|>search\n{"text": "a"}', "I look.", ["search"]),
        ('I look.\nsearch\n{"text": "a"}\nDone.', "I look.\nDone.", ["search"]),
        ("other\n{}", "other\n{}", []),
        ("research\n{}", "research\n{}", []),
        ("search\nfor it", "search\nfor it", []),
        ("I search\n{}", "I search\n{}", []),
    ],
)
def test_glm_4_knows_calls_by_the_names_of_the_tools(text, said, calls):
    reply = parse_reply(text, format="glm-4", tools=TOOLS)
    assert (reply.text, [call.name for call in reply.tool_calls]) == (said, calls)
    assert parse_reply(text, format="glm-4") == Reply(text.lstrip("\n"))


def test_mistral_gives_ids_of_its_own():
    listed = '[TOOL_CALLS][{"name": "f", "arguments": {"a": "]"}, "id": "abcdef123"}, {"name": "g"}]'
    (two,) = parse_reply('[TOOL_CALLS]f[ARGS]{"a": "two\nlines"}', format="mistral").tool_calls
    assert two.arguments == {"a": "two\nlines"}
    assert parse_reply(listed, format="mistral").tool_calls == (
        ToolCall("f", {"a": "]"}, "abcdef123"),
        ToolCall("g", {}, "call00001"),
    )
    named = 'Well.[TOOL_CALLS]f[CALL_ID]abcdef123[ARGS]{"a": "[TOOL_CALLS]"}[TOOL_CALLS]g[ARGS]{}'
    for text in (named, named.replace("[TOOL_CALLS]g", "\n[TOOL_CALLS]g"), named + "\n"):
        assert parse_reply(text, format="mistral") == parse_reply(named, format="mistral")
    reply = parse_reply(named, format="mistral")
    assert reply == Reply(
        "Well.", "", (ToolCall("f", {"a": "[TOOL_CALLS]"}, "abcdef123"), ToolCall("g", {}, "call00001"))
    )


def test_without_tools_there_are_no_calls():
    text = '<tool_call>{"name": "f"}</tool_call>'
    assert parse_reply(text, format="hermes", tools=[]) == Reply(text)
    assert calls_of(parse_reply(text, format="hermes")) == [("f", {})]


def test_plain_text_stays_as_it_is():
    text = "\n\n<think>a</think>\n<tool_call>\n"
    assert parse_reply(text, format=reply_format(TEMPLATES["smollm2"])) == Reply(text)
    assert parse_reply(text, format=reply_format(None)) == Reply(text)


def test_a_call_of_a_megabyte():
    value = 'ab"\\</tool_' * 90_000
    text = f"<tool_call>{json.dumps({'name': 'f', 'arguments': {'a': value}})}</tool_call>"
    assert len(text) > 1_000_000
    reply = events_of(text, [text[at : at + 50] for at in range(0, len(text), 50)], format="hermes")[1]
    assert calls_of(reply) == [("f", {"a": value})]


def test_a_finished_parser_takes_no_more():
    parser = ReplyParser("hermes")
    parser.finish()
    with pytest.raises(InputError, match="has ended"):
        parser.feed("a")


CONVERSATION = {
    "qwen2.5": """\
<|im_start|>assistant
Let me look.
<tool_call>
{"name": "search", "arguments": {"text": "Rome", "count": 2}}
</tool_call>
<tool_call>
{"name": "no_arguments", "arguments": {}}
</tool_call><|im_end|>
<|im_start|>user
<tool_response>
{"found": 2}
</tool_response>
<tool_response>
ok
</tool_response><|im_end|>
<|im_start|>assistant
Two.<|im_end|>
<|im_start|>user
Thanks<|im_end|>
<|im_start|>assistant
""",
    "glm-4.6": """\
<|assistant|>
<think></think>
Let me look.
<tool_call>search
<arg_key>text</arg_key>
<arg_value>Rome</arg_value>
<arg_key>count</arg_key>
<arg_value>2</arg_value>
</tool_call>
<tool_call>no_arguments
</tool_call><|observation|>
<tool_response>
{"found": 2}
</tool_response>
<tool_response>
ok
</tool_response><|assistant|>
<think></think>
Two.<|user|>
Thanks<|assistant|>""",
    "glm-4-0414": """\
<|assistant|>
Let me look.<|assistant|>search
{"text": "Rome", "count": 2}<|assistant|>no_arguments
{}<|observation|>
{"found": 2}<|observation|>
ok<|assistant|>
Two.<|user|>
Thanks<|assistant|>""",
}
CONVERSATION["qwen3"] = CONVERSATION["qwen2.5"]  # thinking of earlier turns is left out


@pytest.mark.parametrize("template", CONVERSATION)
def test_a_conversation_with_tools_goes_on(template):
    form = reply_format(TEMPLATES[template])
    calls = (ToolCall("search", {"text": "Rome", "count": 2}, "a"), ToolCall("no_arguments", {}, "b"))
    messages = [
        USER,
        Reply("Let me look.", "Hm.", calls).to_message(),
        tool_message(calls[0], '{"found": 2}'),
        tool_message(calls[1], "ok"),
        Reply("Two.", "Easy.").to_message(),
        {"role": "user", "content": "Thanks"},
    ]
    assert rendered(template, form.messages(messages)).endswith(CONVERSATION[template])


@pytest.mark.parametrize(
    ("template", "thought"), [("qwen3", "<think>\nHm.\n</think>\n\n"), ("glm-4.6", "<think>Hm.</think>\n")]
)
def test_thinking_of_the_present_turn_stays(template, thought):
    call = ToolCall("search", {"text": "Rome"}, "a")
    messages = [USER, Reply("Let me look.", "Hm.", (call,)).to_message(), tool_message(call, "ok")]
    assert thought + "Let me look.\n<tool_call>" in rendered(template, messages)


def test_glm_4_writes_a_call_without_text_as_one_message():
    reply = parse_reply('search\n{"text": "a"}', format="glm-4", tools=TOOLS)
    assert reply_format(None, "glm-4").messages([reply.to_message()]) == [
        {"role": "assistant", "metadata": "search", "content": '{"text": "a"}'}
    ]


def test_messages_of_others_are_completed():
    call = {"id": "a", "function": {"name": "f", "arguments": '{"a": 1}'}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    (completed,) = reply_format(None, "hermes").messages([message])
    assert completed == {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "id": "a", "function": {"name": "f", "arguments": {"a": 1}}}],
    }
    assert message["content"] is None
    assert call["function"]["arguments"] == '{"a": 1}'
    plain = {"role": "assistant", "content": "Hi", "tool_calls": []}
    assert reply_format(None, "hermes").messages([plain]) == [{"role": "assistant", "content": "Hi"}]
    for wrong in ({"function": {"name": "f", "arguments": "{"}}, {"name": 1}, "f"):
        with pytest.raises(InputError, match="can't be read"):
            reply_format(None, "hermes").messages([{"role": "assistant", "tool_calls": [wrong]}])


def test_tools_are_json_schemas():
    assert tool_properties(TOOLS) == {"search": SCHEMA, "no_arguments": {}}
    for wrong in (print, {}, {"type": "function", "function": {"name": 1}}):
        with pytest.raises(InputError, match=r"tools\[0\] is no JSON schema"):
            ReplyParser("hermes", tools=[wrong])


def test_a_format_is_chosen_by_tokenizer_template_or_name():
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="a"))
    assert reply_format(Tokenizer(backend, chat_templates={"default": TEMPLATES["qwen3"]})).name == "hermes"
    assert reply_format(Tokenizer(backend)).name == "plain"
    assert reply_format(TEMPLATES["qwen2.5"], "glm-4.5").name == "glm-4.5"
    with pytest.raises(InputError, match="no reply format 'x'"):
        reply_format(None, "x")


def test_a_package_registers_its_own(monkeypatch):
    monkeypatch.setattr("mlx_core.text.formats._FORMATS", {name: reply_format(None, name) for name in reply_formats()})
    syntax = CallSyntax(lambda names: ("<<",), ">>", lambda text, tools: [ToolCall(text[2:-2], {})])
    mine = ReplyFormat("mine", None, syntax, ("<tool_call>", "<<"))
    register_format(mine)
    register_format(mine)
    assert "mine" in reply_formats()
    assert reply_format('<tool_call> "arguments <<') == mine
    assert calls_of(parse_reply("a<<f>>", format="mine")) == [("f", {})]
    with pytest.raises(InputError, match="already"):
        register_format(ReplyFormat("mine"))


def test_a_delimiter_that_cannot_grow_is_found_at_once():
    assert find_delimiter("a<b>", ("<b>", "<longer>")) == (1, "<b>")
    assert find_delimiter("a<b", ("<b>", "<longer>")) == (1, None)
    assert find_delimiter("a<", ("<", "<<")) == (1, None)
    assert find_delimiter("a<", ("<", "<<"), final=True) == (1, "<")


@given(
    st.text("abc", max_size=12),
    st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=3).map(tuple),
    st.integers(0, 12),
)
@settings(max_examples=500, deadline=None)
def test_a_delimiter_is_found_as_in_the_whole_text(text, delimiters, cut):
    def search(whole):
        """The first and longest delimiter."""
        found = [(whole.find(delimiter), -len(delimiter), delimiter) for delimiter in delimiters if delimiter in whole]
        return (min(found)[0], min(found)[2]) if found else (len(whole), None)

    assert find_delimiter(text, delimiters, final=True) == search(text)
    at, delimiter = find_delimiter(text[:cut], delimiters)
    if delimiter is not None:
        assert (at, delimiter) == search(text)
    else:
        assert search(text)[0] >= min(at, len(text))
        held = text[:cut][at:]
        assert not held or any(other.startswith(held) for other in delimiters)
