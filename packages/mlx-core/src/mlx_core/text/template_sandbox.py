"""The Jinja environment that chat templates run in.

A template arrives with a checkpoint, so it is a stranger's program. Jinja's immutable sandbox keeps it from Python's
insides and from changing what it is given. What is added here bounds it: the time a rendering takes, looked at in
each loop step, call and operation, and the size of what it writes and of each value on the way. A list counts with
all that is in it, as often as it is in it: one that holds another twice, which holds another twice, is small until it
is written. And all
texts together that are made on the way are bounded, as any of them may be kept. That stops a template which loops for
ever, doubles a value or gathers values until memory is full.

What templates of the Hugging Face hub expect is here too: `raise_exception`, `strftime_now`, their kind of `tojson`,
loop controls, `{% generation %}` blocks and trimmed blocks.

This module imports jinja2; `chat_template` imports it when the first template is rendered.
"""

from __future__ import annotations

import functools
import json
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Set, ValuesView
from contextvars import ContextVar
from dataclasses import dataclass, field
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
MAX_PROMPT_BYTES = 2**23  # twice a context of a million tokens; encoding one takes some 200 bytes for each token
MAX_CHARACTERS = 2**24  # of any value on the way
MAX_MADE = 2**28  # characters of all texts on the way together, of up to four bytes each
_MAX_CONSTANTS = 2**20  # of those that Jinja makes while it compiles, which become part of the program
_ITEM = 16  # characters that an item of a list counts for beside its own
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
    token = _bounds.set(_Bounds(time.monotonic() + MAX_SECONDS, _MAX_CONSTANTS))
    try:
        return _environment().from_string(source)
    finally:
        _bounds.reset(token)


def render(template: Template, variables: Mapping[str, Any]) -> str:
    """The template's text; raises what Jinja and Python raise, and SecurityError when it oversteps its bounds."""
    bounds = _Bounds(time.monotonic() + MAX_SECONDS, MAX_MADE)
    for value in variables.values():
        _weigh_all(value, bounds.given)
    token = _bounds.set(bounds)
    try:
        pieces, size = [], 0
        for piece in template.generate(**variables):
            size += len(piece.encode("utf-8", "surrogatepass"))
            if size > MAX_PROMPT_BYTES:
                raise SecurityError(f"it makes a prompt of more than {MAX_PROMPT_BYTES:,} bytes")
            _check()
            pieces.append(piece)
        return "".join(pieces)
    finally:
        _bounds.reset(token)


@dataclass
class _Bounds:
    """Of what is under way: when it has to end, how many characters may still be made, and how large the containers in
    a rendering's variables are, by their ids.
    """

    deadline: float
    left: int
    given: dict[int, int] = field(default_factory=dict)


_bounds: ContextVar[_Bounds] = ContextVar("bounds")


def _check(size: int = 0) -> None:
    """Called before each step: there must be time for it, and room for a text or list of this size."""
    if size > MAX_CHARACTERS:
        raise SecurityError(f"it makes a text or list of more than {MAX_CHARACTERS:,} characters")
    if time.monotonic() > _bounds.get().deadline:
        raise SecurityError(f"it takes longer than {MAX_SECONDS:g} s")


def _make(size: int) -> None:
    """Called before a text of this size is made, or after it where that can't be known: there must be room for it among
    all those made before.
    """
    _check(size)
    bounds = _bounds.get()
    bounds.left -= size
    if bounds.left < 0:
        raise SecurityError(f"it makes texts of more than {MAX_MADE:,} characters in all")


def _check_format(text: Any, wide: re.Pattern[str] = _WIDE_PERCENT) -> None:
    if isinstance(text, str) and wide.search(text):
        raise SecurityError("it formats with a width that is computed or has five digits")


def _parts(value: Any) -> Collection[Any]:
    """What is in a container."""
    if isinstance(value, Mapping):
        return [*value, *value.values()]
    return value if isinstance(value, list | tuple | Set | ValuesView) else ()


def _size(value: Any) -> int:
    """Characters of a text; of a container, those of all that is in it, shared parts each time. Raises SecurityError
    as soon as they are too many.
    """
    if isinstance(value, str | bytes):
        return len(value)
    total, waiting, given = 0, [value], _bounds.get().given
    while waiting:
        item = waiting.pop()
        if isinstance(item, str | bytes):
            total += len(item)
        elif id(item) in given:
            total += given[id(item)]
        elif parts := _parts(item):
            total += _ITEM * len(parts)
            _check(total)
            waiting.extend(parts)
        if total > MAX_CHARACTERS:
            _check(total)
    return total


def _weigh_all(value: Any, weights: dict[int, int]) -> int:
    """The size of a variable and, in `weights`, of the containers in it, by their ids: they are plain data, and
    stay.
    """
    if isinstance(value, str | bytes):
        return len(value)
    parts = _parts(value)
    size = _ITEM * len(parts) + sum(_weigh_all(part, weights) for part in parts)
    if parts:
        weights[id(value)] = size
    return size


def _bounded(value: Any) -> Any:
    """The value, unless it is too large."""
    if isinstance(value, str):
        _make(len(value))
    elif _parts(value):
        _check(_size(value))
    return value


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _bits(value: Any) -> int:
    return abs(_number(value)).bit_length()


def _formatted_size(text: Any, values: Any, mark: str = "%") -> int:
    """What `text` may become with `values` put in at each mark."""
    return len(text) + text.count(mark) * _size(values) if isinstance(text, str) else 0


def _joined(texts: Iterable[str], separator: str = "") -> str:
    parts, size = [], 0
    for text in texts:
        size += len(text) + len(separator)
        if size > MAX_CHARACTERS:
            _check(size)
        parts.append(text)
    _make(size)
    return separator.join(parts)


def _replaced(text: str, old: str, new: str, count: int = -1) -> str:
    _make(len(text) + text.count(old) * len(new))
    return text.replace(old, new, count)


_BOUNDED_METHODS: dict[str, Callable[..., str]] = {
    "join": lambda separator, texts: _joined(texts, separator),
    "replace": _replaced,
}


class _Meter(NodeTransformer):
    """Puts checks where Jinja has no hook for them: at the steps of loops, on the operator ~, on slices, and where
    lists, tuples and dictionaries are written out.
    """

    def visit_For(self, node: nodes.For) -> nodes.For:
        self.generic_visit(node)
        node.iter = _filter(node.iter, _STEPS)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:
        self.generic_visit(node)
        return _filter(nodes.List(node.nodes, lineno=node.lineno), _CONCATENATION)

    def _visit_container(self, node: nodes.List | nodes.Dict | nodes.Tuple) -> nodes.Expr:
        self.generic_visit(node)
        if isinstance(node, nodes.Tuple) and node.ctx != "load":  # the names that something is assigned to
            return node
        constants = nodes.Const | nodes.List | nodes.Dict | nodes.Tuple
        constant = all(isinstance(part, constants) for part in node.find_all(nodes.Expr))
        return node if constant else _filter(node, _CONTAINER)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Expr:
        self.generic_visit(node)
        return _filter(node, _CONTAINER) if isinstance(node.arg, nodes.Slice) else node

    visit_List = visit_Dict = visit_Tuple = _visit_container


_STEPS, _CONCATENATION, _CONTAINER = (
    "loop steps",
    "concatenation",
    "container or slice",
)  # filters that no template can spell


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


@pass_context
def _container(context: Context, value: Any) -> Any:
    return _bounded(value)


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

    def __repr__(self) -> str:
        return "<Namespace>"  # what it holds may hold it


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
                size = _formatted_size(left, right)
        (_make if isinstance(left, str) or isinstance(right, str) else _check)(size)
        if bits > _MAX_BITS:
            raise SecurityError("it computes a number of hundreds of digits")
        return super().call_binop(context, operator, left, right)

    # The double underscores keep these names free for a template's keyword arguments, as in the base class.
    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        _check()
        owner = getattr(__obj, "__self__", None)
        if type(owner) is str and __obj.__name__ in _BOUNDED_METHODS:
            __obj = functools.partial(_BOUNDED_METHODS[__obj.__name__], owner)
        if any(map(_parts, args)) or any(map(_parts, kwargs.values())):  # which a macro or dict() may put into one
            _check(_size((args, kwargs)))
        return _bounded(super().call(__context, __obj, *args, **kwargs))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return super().is_safe_attribute(obj, attr, value) and not (isinstance(obj, str) and attr in _REMOVED_METHODS)

    def unsafe_undefined(self, obj: Any, attribute: str) -> NoReturn:
        # Jinja's would be written as "", and fail only where it is used further.
        raise SecurityError(f"it reaches for the attribute {attribute!r} of a {type(obj).__name__}")

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapped = super().wrap_str_format(value)
        if wrapped is not None:
            _check_format(value.__self__.replace("{{", ""), _WIDE_BRACES)

            def bounded(*args: Any, **kwargs: Any) -> str:
                _make(_formatted_size(value.__self__, (args, kwargs), "{"))
                return wrapped(*args, **kwargs)

            return bounded
        return None


def _checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The filter, unless time is up or what it makes is too large."""

    @functools.wraps(function)  # carries Jinja's marks, such as pass_context
    def checked(*args: Any, **kwargs: Any) -> Any:
        _check()
        return _bounded(function(*args, **kwargs))

    return checked


def _format_filter(text: Any, *args: Any, **kwargs: Any) -> str:
    _check_format(str(text))
    _make(_formatted_size(str(text), (args, kwargs)))
    return do_format(text, *args, **kwargs)


def _indent_filter(text: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    margin = len(width) if isinstance(width, str) else width
    _make(_size(text) + margin * (1 + len(str(text).splitlines())))
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
    options: dict[str, Any] = {"ensure_ascii": ensure_ascii, "separators": separators, "sort_keys": sort_keys}
    if indent is None:
        return json.dumps(value, **options)
    return _joined(json.JSONEncoder(indent=indent, **options).iterencode(value))  # in depth it may be mostly margins


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
    environment.filters |= {_STEPS: _steps, _CONCATENATION: _concatenation, _CONTAINER: _container}
    environment.globals |= {
        "namespace": _Namespace,
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
    }
    return environment
