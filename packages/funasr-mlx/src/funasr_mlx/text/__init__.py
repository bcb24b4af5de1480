"""Text: tokens and words, tags, timestamps, punctuation, transcripts and their formats."""

from .detokenize import DetokenizedText, Times, join_texts, join_tokens, join_words
from .formats import FORMATS, cues_of
from .punctuation import ENDS, NO_MARK, PunctuationMarks, end_sentence, sentences, spread_mark
from .segmentation import Splitter, is_ascii, jieba_splitter, split_characters
from .tags import Pieces, Tags, read_tags, rich_text
from .timestamps import token_times
from .transcript import Segment, Transcript
from .vocabulary import UNKNOWN, Vocabulary, read_spellings

__all__ = [
    "ENDS",
    "FORMATS",
    "NO_MARK",
    "UNKNOWN",
    "DetokenizedText",
    "Pieces",
    "PunctuationMarks",
    "Segment",
    "Splitter",
    "Tags",
    "Times",
    "Transcript",
    "Vocabulary",
    "cues_of",
    "end_sentence",
    "is_ascii",
    "jieba_splitter",
    "join_texts",
    "join_tokens",
    "join_words",
    "read_spellings",
    "read_tags",
    "rich_text",
    "sentences",
    "split_characters",
    "spread_mark",
    "token_times",
]
