"""Text in and out of models: tokenizers, streaming detokenisation, chat templates, replies. Imports no MLX."""

from .chat_template import Message, Tool
from .detokenizer import StreamingDetokenizer
from .formats import ReplyFormat, ToolCall, register_format, reply_format, reply_formats
from .reply import InvalidToolCall, Reply, ReplyParser, TextDelta, ThinkingDelta, parse_reply, tool_message
from .sentencepiece import read_sentencepiece_model
from .tokenizer import Tokenizer, load_tokenizer

__all__ = [
    "InvalidToolCall",
    "Message",
    "Reply",
    "ReplyFormat",
    "ReplyParser",
    "StreamingDetokenizer",
    "TextDelta",
    "ThinkingDelta",
    "Tokenizer",
    "Tool",
    "ToolCall",
    "load_tokenizer",
    "parse_reply",
    "read_sentencepiece_model",
    "register_format",
    "reply_format",
    "reply_formats",
    "tool_message",
]
