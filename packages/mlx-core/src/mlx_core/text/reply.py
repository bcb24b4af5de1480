"""Replies in parts: text, thinking and tool calls, parsed as they are generated.

    parser = ReplyParser(reply_format(tokenizer), tools=tools)
    for chunk in generation:
        for event in parser.feed(chunk.text):        # TextDelta, ThinkingDelta, ToolCall, InvalidToolCall
            ...
    events = parser.finish()
    messages.append(parser.reply.to_message())

The parts don't depend on how a reply is cut into chunks, and only what may be the start of a delimiter is held back.
Each character of a reply is in its text, in its thinking, or in a call, except for the delimiters of thinking and calls
and the line breaks beside them. The start of a reply counts as a delimiter too, because templates differ in whether the
prompt or the model writes the line break there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import InputError
from .chat_template import Tool
from .delimiters import find_delimiter
from .formats import Quote, ReplyFormat, ToolCall, reply_format, tool_properties


@dataclass(frozen=True)
class TextDelta:
    """Further text of the reply."""

    text: str


@dataclass(frozen=True)
class ThinkingDelta:
    """Further text of the thinking."""

    text: str


@dataclass(frozen=True)
class InvalidToolCall:
    """A tool call that can't be parsed: its whole text, with its delimiters, and the reason, which is "unfinished" if the
    reply ended within the call.
    """

    raw: str
    reason: str


Event = TextDelta | ThinkingDelta | ToolCall | InvalidToolCall


@dataclass(frozen=True)
class Reply:
    """The parts of a reply; text and thinking are "" where the reply has none."""

    text: str
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    invalid_tool_calls: tuple[InvalidToolCall, ...] = ()

    def to_message(self) -> dict[str, Any]:
        """The reply as an assistant's message for the rest of the conversation, in the form of OpenAI's API;
        `ReplyFormat.messages` adapts it to the chat template. Calls that can't be parsed stay in its content.
        """
        content = "\n".join(part for part in (self.text, *(call.raw for call in self.invalid_tool_calls)) if part)
        message: dict[str, Any] = {"role": "assistant", "content": content}
        if self.thinking:
            message["reasoning_content"] = self.thinking
        if self.tool_calls:
            message["tool_calls"] = [
                {"type": "function", "id": call.id, "function": {"name": call.name, "arguments": call.arguments}}
                for call in self.tool_calls
            ]
        return message


def tool_message(call: ToolCall, content: str) -> dict[str, Any]:
    """The message that gives the model the result of a tool call."""
    return {"role": "tool", "name": call.name, "tool_call_id": call.id, "content": content}


def parse_reply(
    text: str,
    *,
    format: ReplyFormat | str,
    tools: Sequence[Tool] | None = None,
    thinking_open: bool = False,
) -> Reply:
    """The parts of a complete reply; the arguments are those of `ReplyParser`."""
    parser = ReplyParser(format, tools=tools, thinking_open=thinking_open)
    parser.feed(text)
    parser.finish()
    return parser.reply


class ReplyParser:
    """Parses a reply while it is generated.

    format: a result of `reply_format`, or the name of a format. tools: the JSON schemas of the tools that were offered,
    which give the types of values in formats that don't write them; with None, calls whose delimiters don't need the
    tools' names are still recognised; with an empty list there are no calls. thinking_open: the prompt ended within a
    thinking block; see `ReplyFormat.opens_thinking`.

    A thinking block is recognised only before any text and call; after that its delimiters are text. Raises InputError
    for an unknown format, for tools that aren't JSON schemas, and for thinking_open in a format without thinking.
    """

    def __init__(
        self, format: ReplyFormat | str, *, tools: Sequence[Tool] | None = None, thinking_open: bool = False
    ) -> None:
        self.format = reply_format(None, format) if isinstance(format, str) else format
        if thinking_open and self.format.thinking is None:
            raise InputError(f"replies of the format {self.format.name!r} have no thinking block to be open.")
        self._properties = tool_properties(tools)
        self._syntax = self.format.calls if tools is None or tools else None
        self._opens = self._syntax.opens(self._properties) if self._syntax else ()
        trims = self.format.thinking is not None or self.format.calls is not None
        self._text, self._thinking = _Part(trims), _Part(trims)
        self._calls: list[ToolCall] = []
        self._invalid: list[InvalidToolCall] = []
        self._events: list[Event] = []
        self._buffer = ""  # parsed up to `_at`
        self._at = 0
        self._state = self._read_thinking if thinking_open else self._read_edge
        self._raw: list[str] = []  # of the call that is being parsed
        self._depth = 0
        self._quote: Quote | None = None
        self._finished = False

    @property
    def reply(self) -> Reply:
        """The parts so far."""
        text, thinking = "".join(self._text.pieces), "".join(self._thinking.pieces)
        return Reply(text, thinking, tuple(self._calls), tuple(self._invalid))

    def feed(self, text: str) -> list[Event]:
        """The events that further text of the reply gives."""
        return self._read(text, final=False)

    def finish(self) -> list[Event]:
        """The last events; the reply has ended."""
        return self._read("", final=True)

    def _read(self, text: str, final: bool) -> list[Event]:
        if self._finished:
            raise InputError("this reply has ended: a new one needs a new ReplyParser.")
        self._finished = final
        self._events = []
        self._buffer, self._at = self._buffer[self._at :] + text, 0
        while self._state(final):
            pass
        if final:
            if self._raw:
                self._end_call(complete=not (self._syntax and self._syntax.closes))
            self._show(TextDelta, self._text.end())
            self._show(ThinkingDelta, self._thinking.end())
        return self._events

    # Each state parses from `_at` on. It returns whether another state has to go on, or else more text is needed.

    def _read_edge(self, final: bool) -> bool:
        """At the start, after thinking and after a call: thinking may begin here, or a call without its line break."""
        called = self._calls or self._invalid
        thinking = () if called or self.format.thinking is None else self.format.thinking[:1]
        delimiters = (*thinking, *(delimiter.lstrip("\n") for delimiter in self._opens))
        if delimiters:
            while self._buffer.startswith("\n", self._at):
                self._at += 1
            start, delimiter = find_delimiter(self._buffer, delimiters, self._at, final=final)
            if delimiter is None and start == self._at:
                return False
            if delimiter is not None and start == self._at:
                if delimiter in thinking:
                    self._at += len(delimiter)
                    self._state = self._read_thinking
                else:
                    self._begin_call(delimiter)
                return True
        self._state = self._read_text
        return True

    def _read_thinking(self, final: bool) -> bool:
        assert self.format.thinking is not None
        end, delimiter = find_delimiter(self._buffer, self.format.thinking[1:], self._at, final=final)
        self._show(ThinkingDelta, self._thinking.add(self._buffer[self._at : end]))
        self._at = end + len(delimiter or "")
        if delimiter is None:
            return False
        self._thinking.at_edge = True
        self._state = self._read_edge
        return True

    def _read_text(self, final: bool) -> bool:
        end, delimiter = find_delimiter(self._buffer, self._opens, self._at, final=final)
        breaks = len(delimiter) - len(delimiter.lstrip("\n")) if delimiter else 0
        self._show(TextDelta, self._text.add(self._buffer[self._at : end + breaks]))
        self._at = end + breaks
        if delimiter is None:
            return False
        self._begin_call(delimiter[breaks:])
        return True

    def _begin_call(self, delimiter: str) -> None:
        self._at += len(delimiter)
        self._raw, self._depth, self._quote = [delimiter], 1, None
        self._text.at_edge = True
        self._state = self._read_call

    def _read_call(self, final: bool) -> bool:
        assert self._syntax is not None
        quotes = {quote.opens: quote for quote in self._syntax.quotes}
        ends = tuple(delimiter for delimiter in (self._syntax.closes, self._syntax.nests) if delimiter)
        outside = (*ends, *quotes) if ends else ()
        while True:
            wanted = self._quote.delimiters if self._quote else outside
            end, delimiter = find_delimiter(self._buffer, wanted, self._at, final=final)
            self._raw.append(self._buffer[self._at : end + len(delimiter or "")])
            self._at = end + len(delimiter or "")
            if delimiter is None:
                return False
            if self._quote is not None:
                if delimiter in self._quote.closes:
                    self._quote = None
            elif delimiter in quotes:
                self._quote = quotes[delimiter]
            else:
                self._depth += 1 if delimiter == self._syntax.nests else -1
                if self._depth == 0:
                    self._end_call(complete=True)
                    self._state = self._read_edge
                    return True

    def _end_call(self, complete: bool) -> None:
        """Parse the call that ends here."""
        assert self._syntax is not None
        raw, self._raw = "".join(self._raw), []
        try:
            if not complete:
                raise ValueError("unfinished")
            calls = self._syntax.read(raw, self._properties)
        except (ValueError, RecursionError) as error:
            reason = "its JSON is nested too deeply" if isinstance(error, RecursionError) else str(error)
            self._invalid.append(InvalidToolCall(raw, reason))
            self._events.append(self._invalid[-1])
            return
        for call in calls:
            self._calls.append(replace(call, id=call.id or f"call{len(self._calls):05d}"))
            self._events.append(self._calls[-1])

    def _show(self, delta: type[TextDelta] | type[ThinkingDelta], text: str) -> None:
        if text:
            self._events.append(delta(text))


class _Part:
    """Text in pieces, without the line breaks beside delimiters. Line breaks before a delimiter are kept if more text
    follows after it, so that two lines aren't joined.
    """

    def __init__(self, trims: bool) -> None:
        self.pieces: list[str] = []
        self.at_edge = trims  # nothing since the last delimiter
        self._trims = trims
        self._breaks = 0  # held back: a delimiter may follow

    def add(self, text: str) -> str:
        """Take further text; returns what of it can be shown, and what was held back before it."""
        if self.at_edge:
            text = text.lstrip("\n")
        if not text:
            return ""
        self.at_edge = False
        shown = text.rstrip("\n") if self._trims else text
        breaks = len(text) - len(shown)
        if not shown:
            self._breaks += breaks
            return ""
        shown, self._breaks = "\n" * self._breaks + shown, breaks
        self.pieces.append(shown)
        return shown

    def end(self) -> str:
        """The line breaks that were held back, when nothing follows."""
        rest = "" if self.at_edge else "\n" * self._breaks
        self._breaks = 0
        if rest:
            self.pieces.append(rest)
        return rest
