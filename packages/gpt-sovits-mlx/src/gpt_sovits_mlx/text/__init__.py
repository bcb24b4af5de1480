"""The text front end: text to phones, with what BERT needs and the pauses that were asked for.

    from gpt_sovits_mlx.text import TextFrontend

    for utterance in TextFrontend("v2")("今天天气很好, let's go to Beijing."):
        print(utterance.normalized, utterance.phones, utterance.ids)

Nothing is read or downloaded at import. `gpt_sovits_mlx.text.markup` describes the marks that a text may carry.
"""

from .frontend import Segment, TextFrontend, Utterance, bert_inputs, phonemes
from .g2pw import G2PW, Polyphones
from .markup import MarkupError
from .segmentation import LANGUAGES
from .segmentation_official import has_detector as uses_official_detector
from .splits import METHODS, sentences
from .symbols import VERSIONS, symbols, to_ids

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
