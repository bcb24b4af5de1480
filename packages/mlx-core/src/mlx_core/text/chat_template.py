"""Chat templates: a checkpoint's Jinja template, rendered over messages and tools.

The templates and the names that they use are Hugging Face's; the text is that of transformers' apply_chat_template.
Neither jinja2 nor the sandbox is imported before a template is rendered.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import TokenizerError

if TYPE_CHECKING:
    from jinja2 import Template

MAX_TEMPLATE = 2**18  # characters; the longest real templates have some 30,000

Message = Mapping[str, Any]
Tool = Mapping[str, Any]


def render_chat(
    source: str,
    messages: Sequence[Message],
    *,
    tools: Sequence[Tool] | None = None,
    add_generation_prompt: bool = True,
    **variables: Any,
) -> str:
    """The prompt that the Jinja template `source` gives for a chat.

    `messages`: dictionaries with at least a "role"; `tools`: JSON schemas of the functions that the model may call;
    `variables`: anything else that the template reads, such as bos_token or enable_thinking. All of them have to be
    plain data: None, booleans, numbers, strings, and lists, tuples and dictionaries of those.

    Raises TokenizerError for a template that can't be compiled, that fails on these messages or refuses them, or that
    exceeds the sandbox's limits; and for messages, tools or variables of another form.
    """
    # A key whose value is None is left out: templates test whether it is defined, and would write "None" otherwise.
    chat = [
        {key: value for key, value in message.items() if value is not None}
        for message in _checked(messages, "messages", _MESSAGE)
    ]
    for index, message in enumerate(chat):
        if not isinstance(message.get("role"), str):
            raise TokenizerError(f"messages[{index}] has no role: {_MESSAGE}")
    if not chat:
        raise TokenizerError(f"there are no messages to render: {_MESSAGE}")
    schemas = None if tools is None else _checked(tools, "tools", _TOOL)
    return _render(
        source,
        {
            "documents": None,
            **{name: _plain(value, name) for name, value in variables.items()},
            "messages": chat,
            "tools": schemas,
            "add_generation_prompt": add_generation_prompt,
        },
    )


def choose_template(templates: Mapping[str, str], wanted: str | None, *, tools: bool) -> str:
    """One of a checkpoint's named templates: the one called `wanted`. With None, "tool_use" for a chat with tools if
    there is one, else "default". A `wanted` that isn't a name is a template itself.

    Raises TokenizerError if there is none to choose.
    """
    if wanted is not None:
        return templates.get(wanted, wanted)
    if tools and "tool_use" in templates:
        return templates["tool_use"]
    if "default" in templates:
        return templates["default"]
    if templates:
        raise TokenizerError(f"none of the chat templates is the default: pass template= one of {', '.join(templates)}")
    raise TokenizerError(
        "this checkpoint has no chat template, as base models often don't: pass template= a Jinja template, "
        "or encode a plain prompt"
    )


_MESSAGE = 'give a list of dictionaries such as {"role": "user", "content": "Hello"}'
_TOOL = 'give a list of JSON schemas such as {"type": "function", "function": {"name": ..., "parameters": ...}}'


def _checked(items: Any, what: str, form: str) -> list[dict[str, Any]]:
    """A plain copy of a list of dictionaries."""
    if isinstance(items, str | bytes | Mapping) or not isinstance(items, Sequence):
        raise TokenizerError(f"{what} must be a list, found {type(items).__name__}: {form}")
    for index, item in enumerate(items):
        if not isinstance(item, Mapping):
            raise TokenizerError(f"{what}[{index}] must be a dictionary, found {type(item).__name__}: {form}")
    return [_plain(item, f"{what}[{index}]") for index, item in enumerate(items)]


def _plain(value: Any, where: str) -> Any:
    """A copy of plain data. Templates are untrusted programs: they get no object that has methods of its own."""
    try:
        return _copy(value, where)
    except RecursionError:
        raise TokenizerError(f"{where} is nested too deeply, or holds itself: flatten it") from None


def _copy(value: Any, where: str) -> Any:
    if value is None or isinstance(value, bool):
        return value
    # A subclass is turned into the plain type, so that none of its methods can be called.
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, Mapping):
        return {_copy(key, where): _copy(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_copy(item, f"{where}[{index}]") for index, item in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    raise TokenizerError(
        f"{where} is a {type(value).__name__}, but a template is given plain data only: "
        "None, booleans, numbers, strings, and lists and dictionaries of them"
    )


def _render(source: str, variables: Mapping[str, Any]) -> str:
    from jinja2 import TemplateError
    from jinja2.exceptions import SecurityError

    from .template_sandbox import RefusedMessages, render

    template = _compiled(source)
    try:
        return render(template, variables)
    except RefusedMessages as error:
        raise TokenizerError(f"the chat template refuses these messages: {error}") from error
    except SecurityError as error:
        raise TokenizerError(f"the chat template was stopped: {error}; pass another one as template=") from error
    except TemplateError as error:
        raise TokenizerError(
            f"the chat template can't render these messages: {error}; see that every message has what it reads"
        ) from error
    except Exception as error:  # a template is a program, and may fail as any program does
        raise TokenizerError(
            f"the chat template can't render these messages: {type(error).__name__}: {str(error)[:200]}; "
            "see that every message has what it reads"
        ) from error


@functools.lru_cache(maxsize=64)
def _compiled(source: str) -> Template:
    from .template_sandbox import compile_template

    if len(source) > MAX_TEMPLATE:
        raise TokenizerError(f"the chat template has {len(source):,} characters, more than {MAX_TEMPLATE:,}")
    try:
        return compile_template(source)
    except Exception as error:  # Jinja's errors, and Python's for deep nesting
        line = getattr(error, "lineno", None)
        where = "" if line is None else f" at line {line}"
        raise TokenizerError(f"the chat template isn't valid Jinja{where}: {error}; pass another one") from error
