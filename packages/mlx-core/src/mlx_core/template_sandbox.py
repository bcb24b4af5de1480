"""The Jinja environment that chat templates run in.

A template arrives with a checkpoint, so it is a stranger's program. Jinja's immutable sandbox keeps it from Python's
insides and from changing what it is given. What is added here bounds it: the time a rendering takes, looked at in each
loop step, call and operation, and the size of what it writes and of each text on the way. That stops a template which
loops for ever or doubles a text until memory is full; it is no jail for memory, which takes a process of its own.

What templates of the Hugging Face hub expect is here too: `raise_exception`, `strftime_now`, their kind of `tojson`,
loop controls, `{% generation %}` blocks and trimmed blocks.

This module imports jinja2; `chat_template` imports it when the first template is rendered.
"""

from __future__ import annotations

import functools
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import Environment, Template, TemplateError, nodes, pass_context, pass_environment
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import do_format, do_indent, make_attrgetter
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

MAX_SECONDS = 10.0  # a chat of a thousand messages takes some hundredths of one
MAX_CHARACTERS = 2**24  # of a prompt, and of any text on the way: four times a context of a million tokens
_MAX_INDENT = 100  # of JSON's levels, in columns
_MAX_BITS = 1024  # of a product or power of integers

# What makes a long text of a short one, and no chat template needs; or draws from Python's global random state.
_REMOVED_FILTERS = ("batch", "center", "pprint", "random", "slice", "urlize", "wordwrap", "xmlattr")
_REMOVED_METHODS = frozenset({"center", "expandtabs", "ljust", "rjust", "translate", "zfill"})
_REMOVED_GLOBALS = ("lipsum",)

# A width that is computed or has five digits, in the two languages of formats.
_WIDE_PERCENT = re.compile(r"%[^a-zA-Z%]*(\*|\d{5})")
_WIDE_BRACES = re.compile(r"\{[^{}]*(\{|\d{5})")


class RefusedMessages(TemplateError):
    """The template called raise_exception."""


def compile_template(source: str) -> Template:
    """The compiled template; raises what Jinja and Python raise for a bad one."""
    return _environment().from_string(source)


def render(template: Template, variables: Mapping[str, Any]) -> str:
    """The template's text; raises what Jinja and Python raise, and SecurityError when it oversteps its bounds."""
    token = _deadline.set(time.monotonic() + MAX_SECONDS)
    try:
        pieces, size = [], 0
        for piece in template.generate(**variables):
            size += len(piece)
            _check(size)
            pieces.append(piece)
        return "".join(pieces)
    finally:
        _deadline.reset(token)


_deadline: ContextVar[float] = ContextVar("deadline", default=float("inf"))  # of the rendering under way


def _check(size: int = 0) -> None:
    """Called before each step: there must be time for it, and room for a text or list of this size."""
    if size > MAX_CHARACTERS:
        raise SecurityError(f"it makes a text or list of more than {MAX_CHARACTERS:,} characters or items")
    if time.monotonic() > _deadline.get():
        raise SecurityError(f"it takes longer than {MAX_SECONDS:g} s")


def _check_format(text: Any, wide: re.Pattern[str] = _WIDE_PERCENT) -> None:
    if isinstance(text, str) and wide.search(text):
        raise SecurityError("it formats with a width that is computed or has five digits")


def _size(value: Any) -> int:
    return len(value) if isinstance(value, str | bytes | list | tuple) else 0


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _bits(value: Any) -> int:
    return abs(_number(value)).bit_length()


def _joined(texts: Iterable[str], separator: str = "") -> str:
    parts = list(texts)
    _check(sum(map(len, parts)) + len(separator) * len(parts))
    return separator.join(parts)


def _replaced(text: str, old: str, new: str, count: int = -1) -> str:
    _check(len(text) + text.count(old) * len(new))
    return text.replace(old, new, count)


_BOUNDED_METHODS: dict[str, Callable[..., str]] = {
    "join": lambda separator, texts: _joined(texts, separator),
    "replace": _replaced,
}


class _Meter(NodeTransformer):
    """Puts checks where Jinja has no hook for them: at the steps of loops, and on the operator ~."""

    def visit_For(self, node: nodes.For) -> nodes.For:
        self.generic_visit(node)
        node.iter = _filter(node.iter, _STEPS)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:
        self.generic_visit(node)
        return _filter(nodes.List(node.nodes, lineno=node.lineno), _CONCATENATION)


_STEPS, _CONCATENATION = "loop steps", "concatenation"  # names of filters that no template can spell


def _filter(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


@pass_context  # keeps Jinja from calling it while it compiles, on what is constant
def _steps(context: Context, items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        _check()
        yield item


@pass_context
def _concatenation(context: Context, parts: list[Any]) -> str:
    return _joined(map(str, parts))


class _Generation(Extension):
    """`{% generation %}` marks what an assistant wrote, for training; here it only groups."""

    tags = {"generation"}  # noqa: RUF012 - as the base class declares it

    def parse(self, parser: Parser) -> nodes.Scope:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


class _Namespace(Namespace):
    """Jinja's namespace() without the names that Python itself looks for on an object."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        attributes = dict(*args, **kwargs)
        for name in attributes:
            _check_name(name)
        super().__init__(attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"it stores {name!r}, a private name, in a namespace")


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"+", "*", "**", "%"})
    concat = staticmethod(_joined)  # of what a macro or a block has written

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        _Meter().visit(tree)
        return tree

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        size = bits = 0
        match operator:
            case "+":
                size = _size(left) + _size(right)
            case "*":
                size = max(_size(left) * _number(right), _size(right) * _number(left))
                bits = _bits(left) + _bits(right)
            case "**":
                bits = _bits(left) * abs(_number(right))
            case "%":
                _check_format(left)
        _check(size)
        if bits > _MAX_BITS:
            raise SecurityError("it computes a number of hundreds of digits")
        return super().call_binop(context, operator, left, right)

    # The double underscores keep these names free for a template's keyword arguments, as in the base class.
    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        _check()
        owner = getattr(__obj, "__self__", None)
        if type(owner) is str and __obj.__name__ in _BOUNDED_METHODS:
            __obj = functools.partial(_BOUNDED_METHODS[__obj.__name__], owner)
        return super().call(__context, __obj, *args, **kwargs)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return super().is_safe_attribute(obj, attr, value) and not (isinstance(obj, str) and attr in _REMOVED_METHODS)

    def unsafe_undefined(self, obj: Any, attribute: str) -> NoReturn:
        # Jinja's would be written as "", and fail only where it is used further.
        raise SecurityError(f"it reaches for the attribute {attribute!r} of a {type(obj).__name__}")

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapped = super().wrap_str_format(value)
        if wrapped is not None:
            _check_format(value.__self__.replace("{{", ""), _WIDE_BRACES)
        return wrapped


def _checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The filter, unless time is up."""

    @functools.wraps(function)  # carries Jinja's marks, such as pass_context
    def checked(*args: Any, **kwargs: Any) -> Any:
        _check()
        return function(*args, **kwargs)

    return checked


def _format_filter(text: Any, *args: Any, **kwargs: Any) -> str:
    _check_format(str(text))
    return do_format(text, *args, **kwargs)


def _indent_filter(text: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    margin = len(width) if isinstance(width, str) else width
    _check(_size(text) + margin * (1 + len(str(text).splitlines())))
    return do_indent(text, width, first, blank)


@pass_environment
def _join_filter(
    environment: Environment, items: Iterable[Any], d: Any = "", attribute: str | int | None = None
) -> str:
    values = items if attribute is None else map(make_attrgetter(environment, attribute), items)
    return _joined(map(str, values), str(d))


def _replace_filter(text: Any, old: Any, new: Any, count: int | None = None) -> str:
    return _replaced(str(text), str(old), str(new), -1 if count is None else count)


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """JSON as Hugging Face's templates expect it: Jinja's own escapes HTML's characters."""
    if _number(indent) > _MAX_INDENT:
        raise SecurityError(f"it indents JSON by more than {_MAX_INDENT} columns")
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise RefusedMessages(message)


def _strftime_now(format: str) -> str:
    _check_format(format)
    return datetime.now().strftime(format)


@functools.cache
def _environment() -> _Environment:
    environment = _Environment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    for name in _REMOVED_FILTERS:
        del environment.filters[name]
    for name in _REMOVED_GLOBALS:
        del environment.globals[name]
    environment.filters |= {
        "format": _format_filter,
        "indent": _indent_filter,
        "join": _join_filter,
        "replace": _replace_filter,
        "tojson": _tojson,
    }
    environment.filters |= {name: _checked(function) for name, function in environment.filters.items()}
    environment.filters |= {_STEPS: _steps, _CONCATENATION: _concatenation}
    environment.globals |= {
        "namespace": _Namespace,
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
    }
    return environment
