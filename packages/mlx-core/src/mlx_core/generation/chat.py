"""Conversations that keep their history in the KV cache, so that each turn computes only its new tokens."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

from ..cache import KeyValueCache
from ..engines import LanguageModel
from ..text import Message, Reply, ReplyParser, Tokenizer, Tool, reply_format
from .generation import Generate
from .prefill import OnProgress
from .request import GenerationChunk, GenerationStats
from .sampler import SamplingParams


class ChatSession:
    """A conversation: its messages, and a cache with their tokens.

    Thinking and tool calls are parsed: after each turn `reply` has the parts of the answer, and `messages` has the
    answer as the chat template takes it. An answer that is stopped early (by closing its iterator, or Ctrl-C) stays in
    the history as far as it was generated.

    tools: JSON schemas of functions that the model may call; send their results as `tool_message`s.
    template_variables: further variables of the chat template. make_cache: used instead of `model.make_cache`.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        *,
        params: SamplingParams | None = None,
        system: str | None = None,
        tools: Sequence[Tool] | None = None,
        template_variables: dict[str, Any] | None = None,
        make_cache: Callable[[], list[KeyValueCache]] | None = None,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._params = params
        self._variables = template_variables or {}
        self._system = system
        self._tools = tools
        self._format = reply_format(tokenizer.template_source(tools=bool(tools)))
        self._make_cache = make_cache or (lambda: model.make_cache())
        self.reset()

    def reset(self) -> None:
        """Start a new conversation with the same system message."""
        self.messages: list[dict[str, Any]] = [{"role": "system", "content": self._system}] if self._system else []
        self._cache: list[KeyValueCache] = self._make_cache()
        self._cached: list[int] = []
        self.stats: GenerationStats | None = None
        self.reply: Reply | None = None

    def send(
        self, text: str | Sequence[Message], on_progress: OnProgress | None = None
    ) -> Generator[GenerationChunk, None, None]:
        """Generate the answer to the user's text, or to messages such as results of tools, chunk by chunk.

        The chunks include the delimiters of thinking and tool calls; afterwards `reply` has the parts. A turn that fails
        before its first chunk leaves the history unchanged.
        """
        before = len(self.messages)
        self.messages += [{"role": "user", "content": text}] if isinstance(text, str) else [dict(m) for m in text]
        generation: Generate | None = None
        self.stats = self.reply = None
        parser = None
        try:
            prompt = self._tokenizer.apply_chat_template(
                self._format.messages(self.messages), tools=self._tools, **self._variables
            )
            tokens = self._tokenizer.encode(prompt, add_special_tokens=False)
            parser = ReplyParser(
                self._format, tools=self._tools or [], thinking_open=self._format.opens_thinking(prompt)
            )
            reused = self._reuse(tokens)
            generation = Generate(
                self._model,
                self._tokenizer,
                tokens[reused:],
                params=self._params,
                cache=self._cache,
                on_progress=on_progress,
                shown_special_tokens=self._format.special_tokens,
            )
            for chunk in generation:
                parser.feed(chunk.text)
                yield chunk
        finally:
            if generation is not None:
                generation.close()
                self.stats = generation.stats
                offset = self._cache[0].offset if self._cache else 0
                self._cached = [*tokens, *generation.tokens][:offset]
            if parser is not None and generation is not None and generation.tokens:
                parser.finish()
                self.reply = parser.reply
                self.messages.append(self.reply.to_message())
            else:
                del self.messages[before:]

    def _reuse(self, tokens: list[int]) -> int:
        """Trim the cache to the prefix that it shares with `tokens`, all but the last at most; returns its length."""
        limit = min(len(self._cached), len(tokens) - 1)
        shared = next((i for i in range(limit) if self._cached[i] != tokens[i]), limit)
        surplus = len(self._cached) - shared
        if surplus and all(layer.can_trim(surplus) for layer in self._cache):
            for layer in self._cache:
                layer.trim(surplus)
        elif surplus:
            self._cache, shared = self._make_cache(), 0
        self._cached = tokens[:shared]
        return shared
