"""Which reading of a homograph is meant: the official choice by part of speech, and a better one by its neighbours.

The official list has 371 words; in the better mode those whose readings it swaps are put right, and words that it lacks
(lead, live, wind, tear …) are added. Neighbours decide where they are telling, else the tagger does.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..resources import word_list
from .lexicon import Homograph, homographs

_PUT_RIGHT = {
    "learned": Homograph("L ER1 N D", "L ER1 N D", "V"),
    "mouth": Homograph("M AW1 DH", "M AW1 TH", "V"),
    "mouths": Homograph("M AW1 DH Z", "M AW1 DH Z", "V"),
    "object": Homograph("AH0 B JH EH1 K T", "AA1 B JH EH0 K T", "V"),
    "process": Homograph("P R AA1 S EH2 S", "P R AA1 S EH2 S", "V"),
    "processes": Homograph("P R AA1 S EH0 S AH0 Z", "P R AA1 S EH0 S AH0 Z", "V"),
    "processing": Homograph("P R AA1 S EH0 S IH0 NG", "P R AA1 S EH0 S IH0 NG", "V"),
    "rebel": Homograph("R IH0 B EH1 L", "R EH1 B AH0 L", "V"),
    "rebels": Homograph("R IH0 B EH1 L Z", "R EH1 B AH0 L Z", "V"),
    "blessed": Homograph("B L EH1 S T", "B L EH1 S IH0 D", "V"),
    "dogged": Homograph("D AO1 G D", "D AO1 G IH0 D", "V"),
    "closer": Homograph("K L OW1 S ER0", "K L OW1 S ER0", "J"),
    "closes": Homograph("K L OW1 Z IH0 Z", "K L OW1 Z IH0 Z", "V"),
    "unused": Homograph("AH0 N Y UW1 Z D", "AH0 N Y UW1 Z D", "V"),
    "excise": Homograph("EH0 K S AY1 Z", "EH1 K S AY0 Z", "V"),
    "precipitate": Homograph("P R IH0 S IH1 P IH0 T EY2 T", "P R IH0 S IH1 P IH0 T AH0 T", "V"),
    "envelope": Homograph("EH1 N V AH0 L OW2 P", "EH1 N V AH0 L OW2 P", "V"),
    "frequent": Homograph("F R IH0 K W EH1 N T", "F R IY1 K W AH0 N T", "V"),
    "document": Homograph("D AA1 K Y UW0 M EH2 N T", "D AA1 K Y AH0 M AH0 N T", "V"),
}
# Words that the list lacks: a reading by default, and another beside these words (within two of it on that side).
_BESIDE = {
    "lead": (
        "L IY1 D",
        "L EH1 D",
        "made_of contains contain",
        "pipe pipes paint poisoning bullet bullets acid weights pencil pencils",
    ),
    "live": (
        "L IH1 V",
        "L AY1 V",
        "played performed sang recorded streamed broadcast aired watched perform",
        "music show shows concert broadcast broadcasts stream streaming audience coverage performance performances tv "
        "television album recording event events wire action ammunition animals",
    ),
    "wind": ("W IH1 N D", "W AY1 N D", "", "up down the_clock through around"),
    "winds": ("W IH1 N D Z", "W AY1 N D Z", "", "up down through around its"),
    "wound": ("W UW1 N D", "W AW1 N D", "i you he she it we they", "up down around through tightly"),
    "minute": (
        "M IH1 N AH0 T",
        "M AY0 N UW1 T",
        "",
        "detail details amount amounts particle particles difference differences quantities traces fraction changes",
    ),
    "dove": ("D AH1 V", "D OW1 V", "", "into in off down under deep"),
    "bow": ("B OW1", "B AW1", "took take takes a_deep", "to before down of_the_ship of_the_boat"),
    "bass": ("B EY1 S", "B AE1 S", "sea striped largemouth caught", "fishing fish boat"),
    "tear": (
        "T IH1 R",
        "T EH1 R",
        "to will can could would might i you we they don't didn't muscle and_wear wear",
        "up down apart off into in open out",
    ),
    "sow": ("S OW1", "S AW1", "a sows pig", "and_her piglets"),
    "tears": ("T IH1 R Z", "T EH1 R Z", "he she it", "up down apart off through"),
    "invalid": ("IH0 N V AE1 L AH0 D", "IH1 N V AH0 L AH0 D", "an_old", ""),
}
_SKIPPED = frozenset(
    word_list("not n't never always also really just only even often still ever all now then actually")
)
_BEFORE_VERB = frozenset(
    word_list(
        "to will would can could should must may might shall do does did don't doesn't didn't won't wouldn't can't "
        "cannot couldn't shouldn't mustn't let let's please i you we they who i'll you'll we'll they'll he'll she'll "
        "it'll i'd you'd we'd they'd help"
    )
)
_BEFORE_NOUN = frozenset(
    word_list("a an the my your his her its our their no any some every each another of these those 's in for with")
)
# After these, "to" stands before a noun.
_TO_NOUN = frozenset(
    word_list(
        "due according access subject related prior addition response respect thanks committed exposed similar "
        "attention regard close next"
    )
)
_PAST = frozenset(word_list("yesterday ago last earlier previously once already recently"))
_PERFECT = frozenset(
    word_list(
        "have has had having haven't hasn't hadn't i've you've we've they've was were been being be is are get got "
        "gets wasn't weren't isn't aren't well widely he's she's it's"
    )
)


_FEELING = frozenset(
    word_list("i'm you're he's she's it's we're they're am is are was were be been being feel feels felt seem seems")
)


def official(word: str, tag: str) -> str:
    """The phones of a homograph as the official front end chooses: by its tag alone."""
    entry = homographs()[word]
    # A tag shorter than the entry's fits too where the entry's begins with it: "VB" fits the "VBP" of "read".
    return entry.first if tag.startswith(entry.tag) or entry.tag.startswith(tag) else entry.second


def is_homograph(word: str) -> bool:
    """Whether `choose` has an answer for this lower-case word."""
    return word in homographs() or word in _BESIDE or word in ("lives", "polish")


def choose(words: Sequence[str], tags: Sequence[str], at: int) -> str:
    """The phones of the homograph `words[at]`, by its neighbours and its tag."""
    word = words[at].lower()
    if word == "polish":
        return "P OW1 L IH0 SH" if words[at][0].isupper() and at and words[at - 1].isalpha() else "P AA1 L IH0 SH"
    near = [w.lower() for w in words]
    if word == "read":
        return "R EH1 D" if _is_past_read(near, tags, at) else "R IY1 D"
    if word == "used":
        return "Y UW1 S T" if near[at + 1 : at + 2] == ["to"] and _is_habit(near, tags, at) else "Y UW1 Z D"
    if word == "live" and tags[at][0] in "JR" and _before(near, at) in _PERFECT | {"go", "goes", "going", "went", "re"}:
        return "L AY1 V"
    if word == "lives":
        return "L IH1 V Z" if _is_verb(near, tags, at) else "L AY1 V Z"
    if word == "wind" and _before(near, at) in _BEFORE_VERB:
        return "W AY1 N D"
    if word in _BESIDE:
        return _beside(word, near, at)
    entry = _PUT_RIGHT.get(word) or homographs()[word]
    if word == "content" and _before(near, at) in _FEELING and near[at + 1 : at + 2] in (["with"], ["to"]):
        return entry.second
    if entry.tag != "V":
        return entry.first if tags[at].startswith(entry.tag) else entry.second
    return entry.first if _is_verb(near, tags, at) else entry.second


def _before(near: Sequence[str], at: int) -> str:
    """The word before, adverbs left out; "" at the start of a clause."""
    at -= 1
    while at >= 0 and (near[at] in _SKIPPED or (near[at].endswith("ly") and len(near[at]) > 4)):
        at -= 1
    return near[at] if at >= 0 and near[at][0].isalpha() else ""


def _is_verb(near: Sequence[str], tags: Sequence[str], at: int) -> bool:
    before = _before(near, at)
    after = near[at + 1] if at + 1 < len(near) else ""
    if before == "to" and at > 1 and near[at - 2] in _TO_NOUN:
        return False
    if near[at] == "close" and (
        after in {"to", "by", "enough", "friend", "friends"} or before in {"get", "very", "so"}
    ):
        return False
    if before in _BEFORE_VERB:
        return True
    if before in _BEFORE_NOUN or before.endswith("'s"):
        return False
    if not before and after in {"the", "a", "an", "your", "this", "that", "it", "all", "my", "me", "us"}:
        return True  # an order: "Close the door."
    # A plural subject: "Prices increase when …".
    subject = (
        at > 0
        and tags[at - 1] == "NNS"
        and (at + 1 == len(near) or tags[at + 1][:2] in {"IN", "WR", "RB", "DT", "TO", "."})
    )
    return tags[at].startswith("V") or subject


def _beside(word: str, near: Sequence[str], at: int) -> str:
    usual, other, before, after = _BESIDE[word]
    left = {*near[max(0, at - 2) : at], "_".join(near[max(0, at - 2) : at])}
    right = {*near[at + 1 : at + 2], "_".join(near[at + 1 : at + 3]), "_".join(near[at + 1 : at + 4])}
    if left & set(before.split()) or right & set(after.split()):
        return other
    return usual


def _is_past_read(near: Sequence[str], tags: Sequence[str], at: int) -> bool:
    before = _before(near, at)
    if before in _PERFECT:
        return True
    if before in _BEFORE_NOUN or before in _BEFORE_VERB - {"i", "you", "we", "they", "who"}:
        return False
    start = at
    while start and near[start - 1] not in ".!?":
        start -= 1
    end = at
    while end < len(near) and near[end] not in ".!?,":
        end += 1
    if any(word in _PAST or (word == "when" and i < at) for i, word in enumerate(near[start:end], start)):
        return True
    if before in {"he", "she", "it", "who"}:
        return True  # the present would be "reads"
    return bool(before) and tags[at] in {"VBD", "VBN"} and before not in {"i", "you", "we", "they"}


def _is_habit(near: Sequence[str], tags: Sequence[str], at: int) -> bool:
    """Whether "used to" is a habit ("she used to sing", "I'm used to it"), not a use ("a knife is used to cut")."""
    before = _before(near, at)
    if before in {"is", "are", "was", "were", "be", "been", "being", "it's"}:
        return at + 2 < len(near) and not tags[at + 2].startswith("VB")
    return True
