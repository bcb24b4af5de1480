"""English: text to words, words to ARPAbet phones with stress.

The exact mode is the official front end: its normalisation, CMU dictionary and names, homographs by part of speech,
compounds split by word counts, a network for the rest. The better mode reads numbers, dates, prices and abbreviations
as people do and looks at a homograph's neighbours; `docs` list the differences.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from . import homographs as homograph_rules
from . import official
from .g2p import predict
from .lexicon import homographs, names, split_compound, words
from .normalization import expand
from .tagger import tagger
from .words import OWN_WORDS

_MARKS = frozenset("!?…,.-")
_LONGEST_WORD = 32  # letters that the network is given
_VOICELESS = frozenset(("P", "T", "K", "F", "TH", "HH"))
_SIBILANTS = frozenset(("S", "Z", "SH", "ZH", "CH", "JH"))
_NOT_PHONES = frozenset(("<pad>", "<s>", "</s>", "UW"))  # of the network's; UW without stress has no symbol
# The tokens of NLTK's TweetTokenizer among letters, spaces and '.,?!- (where no emoticon and no number can be):
# bare domains, words with apostrophes or hyphens inside, other words, dots in a row, any other sign.
_TOKEN = re.compile(
    r"(?<!@)[A-Za-z0-9]++(?:[.\-][A-Za-z0-9]++){0,126}\.[A-Za-z]{2,13}\b(?!@)"
    r"|[^\W\d_](?:[^\W\d_]|['\-_])+[^\W\d_]|\w+|\.(?:[^\S\r\n]*\.)+|\S"
)
_LONG_RUN = re.compile(r"([^\w]|_)\1{3,}")
_WORD = re.compile(r"[A-Za-z]+(?:'[A-Za-z]+)*|'(?:cause|em|til|tis|twas|bout|round|n|s)\b|[!?…,.]", re.IGNORECASE)
_SHORT_ENDINGS = {"ve": "V", "ll": "AH0 L", "d": "D", "re": "ER0", "m": "M", "nt": "AH0 N T"}


def normalize(text: str, *, exact: bool = False) -> str:
    """Text in words: ASCII letters, spaces, apostrophes and the marks `!?,.-`.

    `exact` is the official way, its defects included; the default reads more, and reads it better.
    """
    return official.normalize(text) if exact else expand(text)


def pronounce(text: str, *, exact: bool = False, version: str = "v2") -> tuple[list[str], None]:
    """The phones of a normalised text; English has no word2ph. Every version has the same English phones.

    As in the official front end, a comma is put before fewer than four phones.
    """
    phones = _official(text) if exact else _better(text)
    return ([",", *phones] if len(phones) < 4 else phones), None


def _official(text: str) -> list[str]:
    tokens = _TOKEN.findall(_LONG_RUN.sub(r"\1\1\1", text))
    phones: list[str] = []
    for token, tag in zip(tokens, tagger().tag(tokens), strict=True):
        word = token.lower()
        if not re.search("[a-z]", word):
            phones.append(word)
        elif len(word) == 1:
            phones.append("EY1") if token == "A" else phones.extend(words()[word].split())
        elif word in homographs():
            phones += homograph_rules.official(word, tag).split()
        else:
            phones += _look_up(token)
    return _known(phones)


def _known(phones: Sequence[str]) -> list[str]:
    renamed = ("-" if phone == "'" else "UNK" if phone == "<unk>" else phone for phone in phones)
    return [phone for phone in renamed if phone in _MARKS or (phone.isascii() and phone[0].isupper())]


def _look_up(token: str) -> list[str]:
    """A word's phones: dictionary, names, letters if it is short, the word before 's, parts, network."""
    word = token.lower()
    if len(word) > 1 and word in words():
        return words()[word].split()
    if token.istitle() and word in names():
        return names()[word].split()
    if len(word) <= 3:
        return _spell(word)
    if re.fullmatch(r"[a-z]+'s", word):
        return _possessive(_look_up(word[:-2]))
    parts = split_compound(word)
    if len(parts) == 1:
        return _predicted(word)
    return [phone for part in parts for phone in _look_up(part)]


def _predicted(word: str) -> list[str]:
    return [phone for phone in predict(word) if phone not in _NOT_PHONES]


def _spell(word: str) -> list[str]:
    return [phone for c in word for phone in ("EY1" if c == "a" else words().get(c, c)).split()]


def _possessive(phones: list[str]) -> list[str]:
    last = phones[-1] if phones else ""
    if last in _VOICELESS:
        return [*phones, "S"]
    return [*phones, "AH0", "Z"] if last in _SIBILANTS else [*phones, "Z"]


def _better(text: str) -> list[str]:
    tokens = _WORD.findall(text)
    tags = tagger().tag(tokens)
    phones: list[str] = []
    for at, token in enumerate(tokens):
        word = token.lower()
        if token in _MARKS:
            phones.append(token)
        elif len(word) == 1:
            phones += _letter(tokens, at)
        elif homograph_rules.is_homograph(word):
            phones += homograph_rules.choose(tokens, tags, at).split()
        else:
            phones += _read(token)
    return _known(phones)


def _letter(tokens: Sequence[str], at: int) -> list[str]:
    """A letter by its name; "a" is the article, and so is "A" before a word where a sentence starts."""
    token = tokens[at]
    if token == "a":
        return ["AH0"]
    if token == "A":
        starts = at == 0 or tokens[at - 1] in ".!?"
        article = starts and at + 1 < len(tokens) and len(tokens[at + 1]) > 1
        return ["AH0"] if article else ["EY1"]
    return words()[token.lower()].split()


def _read(token: str) -> list[str]:
    """A word's phones: our own list, dictionary, names, 's and other endings, clear compounds, network, letters."""
    word = token.lower()
    for known in (OWN_WORDS, words()):
        if word in known:
            return known[word].split()
    if token[0].isupper() and word in names():
        return names()[word].split()
    if word.endswith("s") and len(word) > 3 and word[:-1] in words():
        return _possessive(words()[word[:-1]].split())
    stem, apostrophe, ending = word.rpartition("'")
    if apostrophe and stem:
        head = _spell(stem) if len(stem) == 1 else _read(token[: len(stem)])
        if ending == "s":
            return _possessive(head)
        if ending == "t" and stem.endswith("n") and len(stem) > 2:
            return [*_read(token[: len(stem) - 1]), "AH0", "N", "T"]
        return [*head, *(_SHORT_ENDINGS[ending].split() if ending in _SHORT_ENDINGS else _read(ending))]
    if not any(vowel in word for vowel in "aeiouy") or (len(word) <= 3 and not token.istitle()):
        return _spell(word)
    if len(word) > 3 and (parts := _plain_compound(word)):
        return [phone for part in parts for phone in words()[part].split()]
    return _predicted(word) or _spell(word)


def _plain_compound(word: str) -> list[str]:
    """The parts of a compound if each is a word of three letters or more; a part that is none means no compound.

    Words too long for the network are split whatever their parts are, down to what the dictionary or the letters give.
    """
    parts = split_compound(word)
    if len(parts) > 1 and all(len(part) >= 3 and part in words() for part in parts):
        return parts
    if len(word) <= _LONGEST_WORD:
        return []
    return [letter for part in parts for letter in ([part] if part in words() else part)]
