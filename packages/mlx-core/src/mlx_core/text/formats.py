"""The formats of thinking blocks and tool calls in replies, and a registry of them.

A format is data, and a function that parses one call. A package adds its own by `register_format`. The format of a
checkpoint is recognised by its chat template, which has to write the earlier calls of a conversation:

    hermes        <tool_call>\\n{"name": …, "arguments": {…}}\\n</tool_call>       Qwen2.5, Qwen3, Hermes
    qwen3-coder   <tool_call>\\n<function=name>\\n<parameter=key>\\nvalue\\n</parameter>\\n</function>\\n</tool_call>
    glm-4.5       <tool_call>name\\n<arg_key>key</arg_key>\\n<arg_value>value</arg_value>\\n</tool_call>
    glm-4         name\\n{…}, the arguments alone, where a tool of that name was offered; GLM-4 up to 0414
    mistral       [TOOL_CALLS][{"name": …, "arguments": {…}}], or [TOOL_CALLS]name[ARGS]{…}
    plain         no calls

Sources: the families' chat templates.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .chat_template import Message, Tool

if TYPE_CHECKING:
    from .tokenizer import Tokenizer

Properties = Mapping[str, Mapping[str, Any]]  # tool name -> parameter name -> JSON schema


@dataclass(frozen=True)
class ToolCall:
    """A tool call of the model. `id` is the model's own where its format has one; otherwise it numbers the calls of a
    reply, in nine letters and digits, as Mistral's templates require.
    """

    name: str
    arguments: dict[str, Any]
    id: str = ""


@dataclass(frozen=True)
class Quote:
    """A span of a call in which the call's own delimiters are plain text: from `opens` to the first of `closes`."""

    opens: str
    closes: tuple[str, ...]
    skips: tuple[str, ...] = ()  # such as escaped quotes, which don't close it

    @property
    def delimiters(self) -> tuple[str, ...]:
        return self.closes + self.skips


@dataclass(frozen=True)
class CallSyntax:
    """The delimiters of a call, and its parser.

    `opens`: gives the opening delimiters, from the names of the tools that were offered. One that begins with a line
    break is also recognised without it at the start of a reply and after another call. `closes`: the closing delimiter,
    or "" where a call goes on to the end of the reply. `nests`: a delimiter that opens another level within the call,
    such as "{"; the opening delimiter counts as the first level. `read`: parses the text from the opening delimiter to
    the closing one, both included; raises ValueError with the reason where it holds no call.
    """

    opens: Callable[[Iterable[str]], tuple[str, ...]]
    closes: str
    read: Callable[[str, Properties], list[ToolCall]]
    quotes: tuple[Quote, ...] = ()
    nests: str = ""


@dataclass(frozen=True)
class ReplyFormat:
    """The format of a family's replies.

    `thinking`: the delimiters of a thinking block; `calls`: the syntax of tool calls; `traits`: strings that a chat
    template of this format contains, all of them; `special_tokens`: delimiters that may be special tokens of the
    vocabulary, which a detokenizer must not skip; `write`: turns a message of a conversation into what the chat template
    takes, which may be several messages.
    """

    name: str
    thinking: tuple[str, str] | None = ("<think>", "</think>")
    calls: CallSyntax | None = None
    traits: tuple[str, ...] = ()
    special_tokens: tuple[str, ...] = ()
    write: Callable[[dict[str, Any]], list[dict[str, Any]]] = field(default=lambda message: [message])

    def opens_thinking(self, prompt: str) -> bool:
        """Whether a prompt ends within a thinking block, so that the reply begins in it."""
        return self.thinking is not None and prompt.rstrip().endswith(self.thinking[0])

    def messages(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """A conversation in the form of OpenAI's API, as this format's chat templates take it: arguments in JSON text
        become objects, and the content of a message with calls is a string.

        Raises InputError for calls that can't be read.
        """
        return [written for message in messages for written in self.write(_completed(message))]


def reply_format(checkpoint: Tokenizer | str | None, name: str | None = None) -> ReplyFormat:
    """The format of a checkpoint's replies, by its tokenizer or its chat template; `name` chooses one instead.

    Its `thinking` is None if the template has no thinking block. Raises InputError for a name that isn't registered.
    """
    template = checkpoint if checkpoint is None or isinstance(checkpoint, str) else checkpoint.chat_template
    if name is not None:
        if name not in _FORMATS:
            raise InputError(f"there is no reply format {name!r}; the formats are {', '.join(_FORMATS)}.")
        return _FORMATS[name]
    template = template or ""
    latest_first = reversed(_FORMATS.values())
    found = next(entry for entry in latest_first if all(trait in template for trait in entry.traits))
    return found if found.thinking is None or found.thinking[1] in template else replace(found, thinking=None)


def register_format(entry: ReplyFormat) -> None:
    """Add a format. Of several formats whose traits a template has, the one registered last is chosen.

    Raises InputError if another format has this name.
    """
    if _FORMATS.setdefault(entry.name, entry) != entry:
        raise InputError(f"there is a reply format {entry.name!r} already: choose another name.")


def reply_formats() -> tuple[str, ...]:
    """The names of the registered formats."""
    return tuple(_FORMATS)


def tool_properties(tools: Sequence[Tool] | None) -> dict[str, Mapping[str, Any]]:
    """The parameters' JSON schemas of each tool, by name. Raises InputError for what isn't a tool's JSON schema."""
    properties = {}
    for index, tool in enumerate(tools or ()):
        function = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise InputError(
                f"tools[{index}] is no JSON schema of a function: give a dictionary such as "
                f'{{"type": "function", "function": {{"name": ..., "parameters": ...}}}}; found {tool!r:.80}.'
            )
        properties[function["name"]] = _mapping(_mapping(function.get("parameters")).get("properties"))
    return properties


def _completed(message: Message) -> dict[str, Any]:
    calls = message.get("tool_calls")
    if not calls:
        return {key: value for key, value in message.items() if key != "tool_calls"}
    return {**message, "content": message.get("content") or "", "tool_calls": [_with_object(call) for call in calls]}


def _with_object(call: Any) -> dict[str, Any]:
    """A call of a message, with its arguments as an object where they were JSON text."""
    function = _mapping(_mapping(call).get("function", call))
    try:
        read = _call(function.get("name"), function.get("arguments"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"a message has a tool call that can't be read: {error}; found {call!r:.80}.") from None
    return {"type": "function", **call, "function": {"name": read.name, "arguments": read.arguments}}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


# --- Parsing one call


def _call(name: Any, arguments: Any, call_id: Any = None) -> ToolCall:
    """A call of these parts. Raises ValueError if they don't make one, or can't be written as JSON in UTF-8."""
    if not isinstance(name, str) or not name or name.split() != [name]:
        raise ValueError(f"a call needs the name of a tool, found {name!r:.80}")
    if isinstance(arguments, str):
        arguments = _json(arguments)
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, Mapping):
        raise ValueError(f"the arguments must be a JSON object, found {arguments!r:.80}")
    try:
        json.dumps([name, arguments], ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:  # NaN, infinities, halves of surrogate pairs
        raise ValueError(f"the arguments can't be written as JSON: {error}") from None
    return ToolCall(name, dict(arguments), call_id if isinstance(call_id, str) else "")


def _json(text: str) -> Any:
    try:
        return json.loads(text, strict=False)  # models write line breaks into strings
    except ValueError as error:
        raise ValueError(f"invalid JSON: {error}") from None


def _json_calls(text: str) -> list[ToolCall]:
    payload = _json(text)
    calls = []
    for entry in payload if isinstance(payload, list) and payload else [payload]:
        if not isinstance(entry, dict):
            raise ValueError(f"a call must be a JSON object with a name and arguments, found {entry!r:.80}")
        calls.append(_call(entry.get("name"), entry.get("arguments", entry.get("parameters")), entry.get("id")))
    return calls


class _TagReader:
    """Reads a text of tags from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def take(self, tag: str) -> bool:
        """Whether `tag` comes next, after optional white space; if so it is consumed."""
        at = _skip_space(self._text, self._at)
        if not self._text.startswith(tag, at):
            return False
        self._at = at + len(tag)
        return True

    def expect(self, tag: str) -> None:
        """Consume `tag`, which has to come next."""
        if not self.take(tag):
            raise ValueError(f"{tag} is missing, found {self._text[self._at :]!r:.80}")

    def until(self, tag: str) -> str:
        """The text before the next `tag`; both are consumed."""
        end = self._text.find(tag, self._at)
        if end < 0:
            raise ValueError(f"{tag} is missing after {self._text[self._at :]!r:.80}")
        text, self._at = self._text[self._at : end], end + len(tag)
        return text

    def end(self) -> None:
        if self._text[self._at :].strip():
            raise ValueError(f"a call ends here, found {self._text[self._at :]!r:.80}")


def _skip_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


_SPACE = re.compile(r"\s*")


# --- Values between tags, which are written as text

_PYTHON = {"True": True, "False": False, "None": None}  # as Qwen3-Coder's templates write them
_TYPES = {type(None): "null", bool: "boolean", int: "integer", float: "number", dict: "object", list: "array"}


def _value(text: str, schema: Mapping[str, Any] | None, *, python: bool = False) -> Any:
    """The JSON value that `text` writes, if the schema allows its type or names no types; else the text itself.

    A string is always written as it is, never as JSON. python: True, False and None are written as in Python.
    """
    types = _types(schema)
    constants = _PYTHON if python or (types and "string" not in types) else {}
    try:
        value = constants[text] if text in constants else json.loads(text)
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return text
    if isinstance(value, str):
        return text
    if types is None:
        return value
    if "integer" in types and "number" not in types and isinstance(value, float) and value.is_integer():
        return int(value)
    kind = _TYPES[type(value)]
    return value if kind in types or (kind == "integer" and "number" in types) else text


def _types(schema: Any) -> set[str] | None:
    """The JSON types that a schema allows, or None if it names none."""
    if not isinstance(schema, Mapping):
        return None
    named = schema.get("type")
    if isinstance(named, str):
        return {named}
    if isinstance(named, list | tuple):
        return {name for name in named if isinstance(name, str)}
    for key in ("anyOf", "oneOf"):
        if isinstance(schema.get(key), list | tuple):
            several = [_types(one) for one in schema[key]]
            return None if None in several else {name for types in several for name in types or ()}
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if isinstance(values, list | tuple) and values:
        return {_TYPES.get(type(value), "string") for value in values}
    return None


# --- The formats

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_JSON_STRING = Quote('"', ('"', "\n"), ("\\\\", '\\"'))  # a line break ends it: the string isn't valid then


def _inner(text: str) -> str:
    return text.removeprefix(_OPEN).removesuffix(_CLOSE)


def _read_hermes(text: str, tools: Properties) -> list[ToolCall]:
    return _json_calls(_inner(text))


def _read_qwen3_coder(text: str, tools: Properties) -> list[ToolCall]:
    tags = _TagReader(_inner(text))
    tags.expect("<function=")
    name = tags.until(">").strip()
    schemas, arguments = tools.get(name, {}), {}
    while tags.take("<parameter="):
        key = tags.until(">").strip()
        value = tags.until("</parameter>").removeprefix("\n").removesuffix("\n")
        arguments[key] = _value(value, schemas.get(key), python=True)
    tags.expect("</function>")
    tags.end()
    return [_call(name, arguments)]


def _read_glm_4_5(text: str, tools: Properties) -> list[ToolCall]:
    body = _inner(text)
    if body.lstrip().startswith("{"):  # GLM sometimes falls back to the more common form
        return _json_calls(body)
    start = body.find("<arg_key>")
    name = (body if start < 0 else body[:start]).strip()
    schemas, arguments = tools.get(name, {}), {}
    tags = _TagReader("" if start < 0 else body[start:])
    while tags.take("<arg_key>"):
        key = tags.until("</arg_key>").strip()
        tags.expect("<arg_value>")
        arguments[key] = _value(tags.until("</arg_value>"), schemas.get(key))
    tags.end()
    return [_call(name, arguments)]


def _read_glm_4(text: str, tools: Properties) -> list[ToolCall]:
    name, _, arguments = text.strip().removeprefix("<|assistant|>").partition("\n")
    return [_call(name, arguments)]


def _open_glm_4(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"{start}{name}\n{{" for name in names for start in ("\n", "<|assistant|>"))


def _write_glm_4(message: dict[str, Any]) -> list[dict[str, Any]]:
    """Each call as an assistant's message, with the tool's name as metadata and the arguments as content."""
    if message.get("role") == "tool":
        return [{**message, "role": "observation"}]
    if not message.get("tool_calls"):
        return [message]
    text = [{"role": "assistant", "content": message["content"]}] if message["content"].strip() else []
    functions = [call["function"] for call in message["tool_calls"]]
    return text + [
        {
            "role": "assistant",
            "metadata": function["name"],
            "content": json.dumps(function["arguments"], ensure_ascii=False),
        }
        for function in functions
    ]


def _read_mistral(text: str, tools: Properties) -> list[ToolCall]:
    body = text.removeprefix("[TOOL_CALLS]")
    return _json_calls(body) if body.lstrip().startswith(("[", "{")) else list(_named_calls(text))


def _named_calls(text: str) -> Iterator[ToolCall]:
    at, decoder = 0, json.JSONDecoder(strict=False)
    while at < len(text):
        head = _MISTRAL_HEAD.match(text, at)
        if head is None:
            raise ValueError(f"a call must be name[ARGS]{{...}}, found {text[at:]!r:.80}")
        try:
            arguments, end = decoder.raw_decode(text, head.end())
        except ValueError as error:
            raise ValueError(f"invalid JSON: {error}") from None
        yield _call(head["name"], arguments, head["id"])
        at = _skip_space(text, end)


_MISTRAL_HEAD = re.compile(
    r"\[TOOL_CALLS\]\s*(?P<name>[^\s\[\]{}]+)\s*(?:\[CALL_ID\]\s*(?P<id>\w+)\s*)?\[ARGS\]\s*"
)  # fmt: skip

_FORMATS: dict[str, ReplyFormat] = {}

for _entry in (
    ReplyFormat("plain"),
    ReplyFormat(
        "hermes",
        calls=CallSyntax(lambda names: (_OPEN,), _CLOSE, _read_hermes, (_JSON_STRING,)),
        traits=(_OPEN, '"arguments'),
    ),
    ReplyFormat(
        "mistral",
        thinking=("[THINK]", "[/THINK]"),
        calls=CallSyntax(lambda names: ("[TOOL_CALLS]",), "", _read_mistral),
        traits=("[TOOL_CALLS]",),
        special_tokens=("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]", "[THINK]", "[/THINK]"),
    ),
    ReplyFormat(
        "glm-4",
        calls=CallSyntax(_open_glm_4, "}", _read_glm_4, (_JSON_STRING,), nests="{"),
        traits=("[gMASK]", "metadata"),
        special_tokens=("<|assistant|>",),
        write=_write_glm_4,
    ),
    ReplyFormat(
        "glm-4.5",
        calls=CallSyntax(lambda names: (_OPEN,), _CLOSE, _read_glm_4_5, (Quote("<arg_value>", ("</arg_value>",)),)),
        traits=(_OPEN, "<arg_key>"),
    ),
    ReplyFormat(
        "qwen3-coder",
        calls=CallSyntax(lambda names: (_OPEN,), _CLOSE, _read_qwen3_coder, (Quote("<parameter=", ("</parameter>",)),)),
        traits=(_OPEN, "<function=", "<parameter="),
    ),
):
    register_format(_entry)
