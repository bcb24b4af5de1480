"""Text to the phones that the networks read, sentence by sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

from mlx_core.errors import InputError

from . import cantonese, chinese, english, japanese, korean, markup, official_segmentation, segmentation
from .phones import PUNCTUATION, UNKNOWN, is_known, symbols, to_ids
from .spans import Span, check_language
from .splits import ENDS, check_method, sentences, squeeze_marks

# Shorter than this and the networks stumble, so that a full stop goes before.
_FEW_PHONES = 6
_FEW_ENGLISH_PHONES = 4
_V1_LANGUAGES = frozenset({"zh", "en", "ja"})
_SPOKEN = _V1_LANGUAGES | {"ko", "yue"}

_OTHERS: Mapping[str, ModuleType] = {"ja": japanese, "ko": korean, "yue": cantonese}
_PROMPT_ENDS = frozenset("。．.！!？?…,，、;；:：~-")
_PLAIN_MARKS = str.maketrans("，、；：。！？", ",,,,.!?")

_CHOSEN_WORD = re.compile(f"([A-Za-z'’]+[{markup.MARKS}])")

_Chosen = Sequence[markup.Chosen]


@dataclass(frozen=True)
class Segment:
    """A stretch of one language.

    Attributes:
        language: zh, en, ja, ko or yue.
        text: as it was found.
        normalized: as it is read, numbers and signs in words. For Chinese this is what BERT is given.
        phones: the phones by name.
        word2ph: how many phones each character of `normalized` has (zh and yue), else None.
    """

    language: str
    text: str
    normalized: str
    phones: tuple[str, ...]
    word2ph: tuple[int, ...] | None


@dataclass(frozen=True)
class Utterance:
    """A sentence, spoken in one go, and the silence after it.

    Attributes:
        text: the sentence; unless `exact`, Chinese numbers are words already.
        segments: its stretches, in order.
        ids: all its phones by number, `[phones]`.
        pause_s: silence that was asked for after it, in seconds; a break with nothing before it has no segments.
        retried: whether a full stop was put before a text too short for the networks.
    """

    text: str
    segments: tuple[Segment, ...]
    ids: tuple[int, ...]
    pause_s: float = 0.0
    retried: bool = False

    @property
    def phones(self) -> tuple[str, ...]:
        """All its phones by name."""
        return tuple(phone for part in self.segments for phone in part.phones)

    @property
    def normalized(self) -> str:
        """The segments' normalised texts, one after the other."""
        return "".join(part.normalized for part in self.segments)


class TextFrontend:
    """The text front end of GPT-SoVITS.

    Args:
        version: v1, v2, v2Pro, v2ProPlus, v3 or v4: what the networks know.
        exact: do what the official front end does, its defects included; no markup is read.
        polyphones: a g2pW model for characters of several readings; without one dictionary, phrases and rules decide.

    Raises:
        InputError: there is no such version.
    """

    def __init__(
        self, version: str = "v2", *, exact: bool = False, polyphones: chinese.Polyphones | None = None
    ) -> None:
        symbols(version)
        self.version = version
        self.exact = exact
        self.polyphones = polyphones

    def __call__(self, text: str, language: str = "auto", *, split: str = "cut5") -> list[Utterance]:
        """The sentences of a text.

        Args:
            text: any text; unless `exact`, with the marks that `gpt_sovits_mlx.text.markup` describes.
            language: one of `LANGUAGES`.
            split: a cut method, cut0 to cut5.

        Raises:
            InputError: no such language or cut method, a wrong mark, a language that the version can't speak, no words.
        """
        check_language(language)
        check_method(split)
        if self.exact:
            pieces = sentences(squeeze_marks(text), split, language)
            found = [utterance for piece in pieces if (utterance := self.utterance(piece, language)).ids]
        else:
            found = [utterance for part in markup.parse(text) for utterance in self._part(part, language, split)]
        if not found:
            raise InputError(f"there is nothing to speak in {text[:40]!r}: no character or word that {language} reads")
        return found

    def utterance(self, text: str, language: str = "auto") -> Utterance:
        """One sentence as it is, uncut and without markup."""
        check_language(language)
        text = markup.without_marks(text)
        return self._utterance(text if self.exact else chinese.say_numbers(text, language), language, ())

    def prompt(self, text: str, language: str = "auto") -> Utterance:
        """The text of a reference, ended by a full stop if it isn't: it would go on into what is spoken after it."""
        text = text.strip("\n") if self.exact else text.strip()
        if text and text[-1] not in (ENDS if self.exact else _PROMPT_ENDS):
            text += "。" if self.exact and language != "en" else "."
        return self.utterance(text, language)

    def _part(self, part: markup.Part, language: str, split: str) -> Iterator[Utterance]:
        """The sentences between two pauses; the last one carries the pause."""
        found = []
        text = chinese.say_numbers(part.text, language).replace("...", "…")
        for sentence in sentences(squeeze_marks(text), split, language):
            utterance = self._utterance(sentence, language, part.readings)
            if any(phone not in PUNCTUATION for phone in utterance.phones):
                found.append(utterance)
        yield from found[:-1]
        if found or part.pause_s:
            last = found[-1] if found else Utterance("", (), ())
            yield Utterance(last.text, last.segments, last.ids, part.pause_s, last.retried)

    def _utterance(self, text: str, language: str, readings: _Chosen, *, retried: bool = False) -> Utterance:
        segment = official_segmentation.segment if self.exact else segmentation.segment
        segments = tuple(self._segment(span, readings) for span in segment(text, language))
        ids = to_ids((phone for part in segments for phone in part.phones), self.version)
        if len(ids) < _FEW_PHONES and not retried:
            return self._utterance("." + text, language, readings, retried=True)
        return Utterance(markup.MARK.sub("", text), segments, tuple(ids), retried=retried)

    def _segment(self, span: Span, readings: _Chosen) -> Segment:
        text = markup.MARK.sub("", span.text)
        spoken = _V1_LANGUAGES if self.version == "v1" else _SPOKEN
        if span.language not in spoken:
            if not self.exact:
                raise InputError(f"v1 speaks {', '.join(sorted(_V1_LANGUAGES))}, not {span.language}: {text[:40]!r}")
            # The official code says a space in English instead; its detector calls marks by themselves "punctuation".
            return Segment(span.language if span.language in _SPOKEN else "en", text, " ", (",",), None)
        for mark in markup.MARK.findall(span.text):
            chosen = readings[markup.index(mark)]
            if span.language != ("en" if chosen.phones else "zh"):
                kind = "ARPAbet is for English" if chosen.phones else "pinyin is for Chinese"
                raise markup.MarkupError(chosen.position, f"{kind}, and {text[:40]!r} is read as {span.language}")
        word2ph: Sequence[int] | None = None
        if span.language == "zh":
            normalized, phones, word2ph = self._chinese(span.text, readings)
        elif span.language == "en":
            normalized, phones = self._english(span.text, readings)
        else:
            normalized, phones, word2ph = self._other(span.language, text)
        known = tuple(phone if is_known(phone, self.version) else UNKNOWN for phone in phones)
        return Segment(span.language, text, normalized, known, None if word2ph is None else tuple(word2ph))

    def _chinese(self, text: str, readings: _Chosen) -> tuple[str, list[str], list[int]]:
        if self.exact:
            return chinese.pronounce_officially(text, self.version, self.polyphones)
        marked = chinese.normalize(text)
        chosen: dict[int, chinese.Reading] = {}
        plain = ""
        for character in marked:
            if not markup.MARK.match(character):
                plain += character
            elif (reading := readings[markup.index(character)].pinyin) is not None and plain:
                chosen[len(plain) - 1] = reading
        phones, word2ph = chinese.pronounce(plain, version=self.version, chosen=chosen, polyphones=self.polyphones)
        return plain, phones, word2ph

    def _english(self, text: str, readings: _Chosen) -> tuple[str, list[str]]:
        if not self.exact:
            text = text.translate(_PLAIN_MARKS)
        if not markup.MARK.search(text):
            normalized = english.normalize(text, exact=self.exact)
            return normalized, english.pronounce(normalized, exact=self.exact)[0]
        pieces: list[str] = []
        phones: list[str] = []
        # A word with chosen phones is cut out: what is on either side of it is read by itself.
        for piece in _CHOSEN_WORD.split(text):
            if markup.MARK.match(piece[-1:]):
                pieces.append(piece[:-1])
                phones += readings[markup.index(piece[-1])].phones
            elif not re.search(r"\w", piece):
                pieces.append(piece.strip())
                phones += [character for character in piece if character in PUNCTUATION]
            else:
                pieces.append(english.normalize(piece))
                found = english.pronounce(pieces[-1])[0]
                # A comma before a few phones is for a segment, not for a piece of one.
                phones += found[1:] if found[:1] == [","] and not pieces[-1].lstrip().startswith(",") else found
        if len(phones) < _FEW_ENGLISH_PHONES:
            phones.insert(0, ",")
        return re.sub(r" (?=[,.!?])", "", " ".join(pieces)).strip(), phones

    def _other(self, language: str, text: str) -> tuple[str, list[str], Sequence[int] | None]:
        module = _OTHERS[language]
        normalized = module.normalize(text, exact=self.exact)
        phones, word2ph = module.pronounce(normalized, exact=self.exact)
        return normalized, phones, word2ph


def phonemes(
    text: str, language: str = "auto", version: str = "v2", *, exact: bool = False, split: str = "cut5"
) -> list[Utterance]:
    """The sentences of a text: `TextFrontend(version, exact=exact)(text, language, split=split)`."""
    return TextFrontend(version, exact=exact)(text, language, split=split)


def bert_inputs(utterance: Utterance) -> Mapping[int, tuple[str, tuple[int, ...]]]:
    """The input of BERT for a sentence: for each Chinese segment, by its first phone's index, its text and its word2ph.

    Every other phone's features are zeros.
    """
    found: dict[int, tuple[str, tuple[int, ...]]] = {}
    start = 0
    for part in utterance.segments:
        if part.language == "zh" and part.word2ph:
            found[start] = (part.normalized, part.word2ph)
        start += len(part.phones)
    return found
