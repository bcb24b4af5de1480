"""The text front end: text to phones, with the input of BERT and the pauses that were asked for.

    from gpt_sovits_mlx.text import TextFrontend

    for utterance in TextFrontend("v2")("今天天气很好, let's go to Beijing."):
        print(utterance.normalized, utterance.phones, utterance.ids)

Nothing is read or downloaded at import. `gpt_sovits_mlx.text.markup` describes the marks that a text may carry.
"""

from .chinese import G2PW, Polyphones
from .frontend import Segment, TextFrontend, Utterance, bert_inputs, phonemes
from .markup import MarkupError
from .official_segmentation import has_detector as uses_official_detector
from .phones import VERSIONS, symbols, to_ids
from .spans import LANGUAGES
from .splits import METHODS, sentences

__all__ = [
    "G2PW",
    "LANGUAGES",
    "METHODS",
    "VERSIONS",
    "MarkupError",
    "Polyphones",
    "Segment",
    "TextFrontend",
    "Utterance",
    "bert_inputs",
    "phonemes",
    "sentences",
    "symbols",
    "to_ids",
    "uses_official_detector",
]
