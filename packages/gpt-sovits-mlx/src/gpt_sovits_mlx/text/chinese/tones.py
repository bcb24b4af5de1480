"""How the tones of Mandarin change in company: 不, 一, the neutral tone, two third tones, 儿.

Rules and word lists are those that PaddleSpeech and GPT-SoVITS use; the networks were trained on what they give. A
tone is one of "1" to "5", 5 being neutral, and "" for what has none (a punctuation mark).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from itertools import accumulate, pairwise

from ..resources import data
from .words import Word, halves

_PARTICLES = "吧呢哈啊呐噻嘛吖嗨哦哒额滴哩哟喽啰耶喔诶的地得"
_DIRECTIONS = "上下进出回过起开"
_BEFORE_MEASURE = "几有两半多各整每做是"
_AFTER_ONE = "：，；。？！“”‘’':,;.?!"  # 一 keeps its tone before a mark


@cache
def _listed(name: str) -> frozenset[str]:
    lists = json.loads(data("words.json"))
    return frozenset(lists[name].split())


def merge(words: Sequence[Word], tones_of: Callable[[str, int], Sequence[str]]) -> list[Word]:
    """Words joined where a tone depends on the neighbour: 不 and 一 with what follows, 听一听, 看看, third tones, 儿.

    Args:
        words: the words of a clause.
        tones_of: the tones of a word, one for each character, by the word and its place in the clause.
    """
    merged = _merge_doubles(_merge_one(_merge_not(words)))
    for whole in (True, False):
        merged = _merge_third_tones(merged, tones_of, whole=whole)
    return _merge_er(merged)


def change(word: str, tag: str, tones: Sequence[str]) -> list[str]:
    """The tones of a word as it is spoken."""
    return _third_tones(word, _neutral(word, tag, _one(word, _not(word, list(tones)))))


def er_colours(word: str, tag: str) -> bool:
    """Whether the 儿 that ends a word takes the tone before it (小院儿) or is a syllable of its own (女儿)."""
    if word in _listed("erhua"):
        return True
    return word not in _listed("no_erhua") and tag not in {"a", "j", "nr"} and word[-2:] not in _listed("no_erhua")


def _merge_not(words: Sequence[Word]) -> list[Word]:
    merged: list[Word] = []
    pending = ""
    for word, tag in words:
        word = pending + word
        pending = "不" if word == "不" else ""
        if not pending:
            merged.append((word, tag))
    return [*merged, ("不", "d")] if pending else merged


def _merge_one(words: Sequence[Word]) -> list[Word]:
    repeated: list[Word] = []
    position = 0
    while position < len(words):
        word, tag = words[position]
        after = words[position + 1] if position + 1 < len(words) else ("", "")
        if word == "一" and repeated and repeated[-1] == after and after[1] == "v":
            repeated[-1] = (after[0] + "一" + after[0], "v")
            position += 2
        else:
            repeated.append((word, tag))
            position += 1
    merged: list[Word] = []
    for word, tag in repeated:
        if merged and merged[-1][0] == "一":
            merged[-1] = ("一" + word, merged[-1][1])
        else:
            merged.append((word, tag))
    return merged


def _merge_doubles(words: Sequence[Word]) -> list[Word]:
    merged: list[Word] = []
    for word, tag in words:
        if merged and merged[-1][0] == word:
            merged[-1] = (word + word, merged[-1][1])
        else:
            merged.append((word, tag))
    return merged


def _merge_third_tones(words: list[Word], tones_of: Callable[[str, int], Sequence[str]], *, whole: bool) -> list[Word]:
    """Join two words, of three characters at most, that are all third tones or (`whole` false) meet in third tones."""
    starts = accumulate((len(word) for word, _ in words), initial=0)
    tones = [list(tones_of(word, start)) for (word, _), start in zip(words, starts, strict=False)]
    merged: list[Word] = []
    joined = False
    for index, (word, tag) in enumerate(words):
        before = words[index - 1][0] if index else ""
        meet = (
            index > 0
            and not joined
            and (
                _all_third(tones[index - 1] + tones[index])
                if whole
                else _all_third([tones[index - 1][-1], tones[index][0]])
            )
        )
        joined = meet and not _is_double(before) and len(before) + len(word) <= 3
        if joined:
            merged[-1] = (merged[-1][0] + word, merged[-1][1])
        else:
            merged.append((word, tag))
    return merged


def _merge_er(words: Sequence[Word]) -> list[Word]:
    merged: list[Word] = []
    for word, tag in words:
        if merged and word == "儿":
            merged[-1] = (merged[-1][0] + word, merged[-1][1])
        else:
            merged.append((word, tag))
    return merged


def _is_double(word: str) -> bool:
    return len(word) == 2 and word[0] == word[1]


def _all_third(tones: Sequence[str]) -> bool:
    return all(tone == "3" for tone in tones)


def _not(word: str, tones: list[str]) -> list[str]:
    if len(word) == 3 and word[1] == "不":  # 看不懂
        tones[1] = "5"
        return tones
    for index, (character, after) in enumerate(zip(word, tones[1:], strict=False)):
        if character == "不" and after == "4":  # 不怕
            tones[index] = "2"
    return tones


def _one(word: str, tones: list[str]) -> list[str]:
    if all(character.isnumeric() for character in word):  # 一零零
        return tones
    if len(word) == 3 and word[1] == "一" and word[0] == word[2]:  # 看一看
        tones[1] = "5"
    elif word.startswith("第一"):
        tones[1] = "1"
    else:
        for index, (character, after) in enumerate(pairwise(word)):
            if character != "一":
                continue
            if tones[index + 1] == "4":  # 一段
                tones[index] = "2"
            elif after not in _AFTER_ONE:  # 一天
                tones[index] = "4"
    return tones


def _neutral(word: str, tag: str, tones: list[str]) -> list[str]:
    if word not in _listed("full") and tag[:1] in {"n", "v", "a"}:  # 奶奶, 试试
        for index in range(1, len(word)):
            if word[index] == word[index - 1]:
                tones[index] = "5"
    if (measure := _neutral_at(word, tag)) is not None:
        tones[measure] = "5"
    first, second = halves(word)
    for part, end in ((first, len(first)), (second, len(word))):
        if part and part[-2:] in _listed("neutral"):
            tones[end - 1] = "5"
    return tones


def _neutral_at(word: str, tag: str) -> int | None:
    """The place of the character that is neutral by rule or by list, if there is one."""
    last, several = len(word) - 1, len(word) > 1
    measure = word.find("个")
    rules = (
        word[-1] in _PARTICLES,
        word in {"了", "着", "过"} and tag in {"ul", "uz", "ug"},  # 走了, 看着, 去过
        several and word[-1] in "们子" and tag in {"r", "n"} and word not in _listed("full"),
        several and word[-1] in "上下里" and tag in {"s", "l", "f"},  # 桌上, 家里
        several and word[-1] in "来去" and word[-2] in _DIRECTIONS,  # 上来, 下去
    )
    if any(rules):
        return last
    if word == "个" or (measure > 0 and (word[measure - 1].isnumeric() or word[measure - 1] in _BEFORE_MEASURE)):
        return measure
    return last if word[-2:] in _listed("neutral") else None


def _third_tones(word: str, tones: list[str]) -> list[str]:
    if len(word) == 2:
        return _two_third(tones)
    if len(word) == 4:  # an idiom is two words of two
        return _two_third(tones[:2]) + _two_third(tones[2:])
    if len(word) != 3:
        return tones
    cut = len(halves(word)[0])
    if _all_third(tones):
        return ["2", "2", "3"] if cut == 2 else [tones[0], "2", "3"]  # 蒙古/包, 纸/老虎
    first, second = tones[:cut], tones[cut:]
    first, second = (
        (_two_third(first) if len(first) == 2 else first),
        (_two_third(second) if len(second) == 2 else second),
    )
    if second and not _all_third(tones[cut:]) and second[0] == "3" and first[-1] == "3":  # 好/喜欢
        first[-1] = "2"
    return first + second


def _two_third(tones: list[str]) -> list[str]:
    return ["2", "3"] if len(tones) == 2 and _all_third(tones) else tones
