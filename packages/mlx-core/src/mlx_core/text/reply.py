"""Replies in parts: what a model says, what it thinks, and which tools it wants called.

    parser = ReplyParser(reply_format(tokenizer), tools=tools)
    for chunk in generation:
        for event in parser.feed(chunk.text):        # TextDelta, ThinkingDelta, ToolCall, InvalidToolCall
            ...
    events = parser.finish()
    messages.append(parser.reply.to_message())

However a reply is cut into chunks, the parts are the same, and only what may be the start of a mark is held back.
Nothing is lost: each character of a reply is in its text, in its thinking, or in a call, but for the marks around
thinking and calls and the line breaks beside them. The start of a reply counts as such a mark, since templates differ
in whether the prompt's last line break is the model's to write.
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
    """More of what the model says."""

    text: str


@dataclass(frozen=True)
class ThinkingDelta:
    """More of what the model thinks."""

    text: str


@dataclass(frozen=True)
class InvalidToolCall:
    """What began as a tool call and is none: all of it, marks included, and why. The reason is "unfinished" where the
    reply ended within the call.
    """

    raw: str
    reason: str


Event = TextDelta | ThinkingDelta | ToolCall | InvalidToolCall


@dataclass(frozen=True)
class Reply:
    """The parts of a reply; text and thinking are empty where there is none."""

    text: str
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    invalid_tool_calls: tuple[InvalidToolCall, ...] = ()

    def to_message(self) -> dict[str, Any]:
        """The assistant's message with which the conversation goes on, for `ReplyFormat.messages` or as it is for
        templates that take the common form. Calls that weren't understood stay in its text, for the model to see.
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
    """The message that answers a tool call with what the tool gave."""
    return {"role": "tool", "name": call.name, "tool_call_id": call.id, "content": content}


def parse_reply(
    text: str,
    *,
    format: ReplyFormat | str,
    tools: Sequence[Tool] | None = None,
    thinking_open: bool = False,
) -> Reply:
    """The parts of a whole reply; see `ReplyParser`."""
    parser = ReplyParser(format, tools=tools, thinking_open=thinking_open)
    parser.feed(text)
    parser.finish()
    return parser.reply


class ReplyParser:
    """Takes a reply apart as it comes.

    format: what `reply_format` gives, or the name of a format. tools: the JSON schemas of the tools that were offered,
    by which values are typed in formats that don't show their types; with None a call is recognised all the same where
    its marks show it, with an empty list there are no calls. thinking_open: the prompt ended within a thinking block;
    see `ReplyFormat.opens_thinking`.

    Thinking is looked for before any text and call only: later on its marks are text. Raises InputError for an unknown
    format, for tools that are no JSON schemas, and for an open block in a format without thinking.
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
        self._buffer = ""  # what came, understood up to `_at`
        self._at = 0
        self._state = self._read_thinking if thinking_open else self._read_edge
        self._raw: list[str] = []  # the call that is being read
        self._depth = 0
        self._quote: Quote | None = None
        self._finished = False

    @property
    def reply(self) -> Reply:
        """The parts so far."""
        text, thinking = "".join(self._text.pieces), "".join(self._thinking.pieces)
        return Reply(text, thinking, tuple(self._calls), tuple(self._invalid))

    def feed(self, text: str) -> list[Event]:
        """What became clear with some more text."""
        return self._read(text, final=False)

    def finish(self) -> list[Event]:
        """What is left when the reply has ended."""
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

    # Each state reads on from `_at`. True: another state goes on from where it came to; False: it wants more text.

    def _read_edge(self, final: bool) -> bool:
        """At the start, after thinking and after a call: where thinking may begin, or a call without a line break."""
        called = self._calls or self._invalid
        thinking = () if called or self.format.thinking is None else self.format.thinking[:1]
        marks = (*thinking, *(mark.lstrip("\n") for mark in self._opens))
        if marks:
            while self._buffer.startswith("\n", self._at):
                self._at += 1
            start, mark = find_delimiter(self._buffer, marks, self._at, final=final)
            if mark is None and start == self._at:
                return False
            if mark is not None and start == self._at:
                if mark in thinking:
                    self._at += len(mark)
                    self._state = self._read_thinking
                else:
                    self._begin_call(mark)
                return True
        self._state = self._read_text
        return True

    def _read_thinking(self, final: bool) -> bool:
        assert self.format.thinking is not None
        end, mark = find_delimiter(self._buffer, self.format.thinking[1:], self._at, final=final)
        self._show(ThinkingDelta, self._thinking.add(self._buffer[self._at : end]))
        self._at = end + len(mark or "")
        if mark is None:
            return False
        self._thinking.at_edge = True
        self._state = self._read_edge
        return True

    def _read_text(self, final: bool) -> bool:
        end, mark = find_delimiter(self._buffer, self._opens, self._at, final=final)
        breaks = len(mark) - len(mark.lstrip("\n")) if mark else 0
        self._show(TextDelta, self._text.add(self._buffer[self._at : end + breaks]))
        self._at = end + breaks
        if mark is None:
            return False
        self._begin_call(mark[breaks:])
        return True

    def _begin_call(self, mark: str) -> None:
        self._at += len(mark)
        self._raw, self._depth, self._quote = [mark], 1, None
        self._text.at_edge = True
        self._state = self._read_call

    def _read_call(self, final: bool) -> bool:
        assert self._syntax is not None
        quotes = {quote.opens: quote for quote in self._syntax.quotes}
        ends = tuple(mark for mark in (self._syntax.closes, self._syntax.nests) if mark)
        outside = (*ends, *quotes) if ends else ()
        while True:
            end, mark = find_delimiter(
                self._buffer, self._quote.marks if self._quote else outside, self._at, final=final
            )
            self._raw.append(self._buffer[self._at : end + len(mark or "")])
            self._at = end + len(mark or "")
            if mark is None:
                return False
            if self._quote is not None:
                if mark in self._quote.closes:
                    self._quote = None
            elif mark in quotes:
                self._quote = quotes[mark]
            else:
                self._depth += 1 if mark == self._syntax.nests else -1
                if self._depth == 0:
                    self._end_call(complete=True)
                    self._state = self._read_edge
                    return True

    def _end_call(self, complete: bool) -> None:
        """What began as a call ends here."""
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
    """Text in pieces, less the line breaks beside marks. Those before a mark come after all if more text follows, lest
    two lines be joined.
    """

    def __init__(self, trims: bool) -> None:
        self.pieces: list[str] = []
        self.at_edge = trims  # nothing since the last mark
        self._trims = trims
        self._breaks = 0  # line breaks that may stand before a mark

    def add(self, text: str) -> str:
        """What can be shown with some more text."""
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
        """What can be shown when nothing follows."""
        rest = "" if self.at_edge else "\n" * self._breaks
        self._breaks = 0
        if rest:
            self.pieces.append(rest)
        return rest
