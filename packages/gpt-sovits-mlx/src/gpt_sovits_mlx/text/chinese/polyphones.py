"""Readings that the words around a character decide, which the dictionary doesn't know."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache

from ..resources import data_lines
from .pinyin import Reading, parse
from .pinyin import readings as dictionary
from .words import Word


def readings(clause: str, words: Sequence[Word]) -> dict[int, Reading]:
    """The readings that a phrase or a rule is sure of, by the character's index in the clause."""
    return _by_rule(clause, words) | _by_phrase(clause)


def by_dictionary(clause: str, words: Sequence[Word]) -> list[Reading]:
    """The dictionary's readings: of words by themselves, of single characters with what is around them."""
    found = dictionary(clause)
    position = 0
    for word, _ in words:
        if len(word) > 1:
            found[position : position + len(word)] = dictionary(word)
        position += len(word)
    return found


@cache
def _phrases() -> tuple[dict[str, tuple[Reading, ...]], int]:
    table: dict[str, tuple[Reading, ...]] = {}
    for line in data_lines("phrases.txt"):
        phrase, *names = line.split()
        table[phrase] = tuple(reading for name in names if (reading := parse(name)))
    return table, max(map(len, table))


def _by_phrase(clause: str) -> dict[int, Reading]:
    """The longest phrase at each place, from the left."""
    table, longest = _phrases()
    found: dict[int, Reading] = {}
    position = 0
    while position < len(clause):
        size = next((n for n in range(longest, 0, -1) if clause[position : position + n] in table), 0)
        if size:
            found |= dict(enumerate(table[clause[position : position + size]], position))
        position += size or 1
    return found


def _by_rule(clause: str, words: Sequence[Word]) -> dict[int, Reading]:
    found: dict[int, Reading] = {}
    position = 0
    for index, (word, tag) in enumerate(words):
        before = words[index - 1] if index else ("", "")
        after = words[index + 1] if index + 1 < len(words) else ("", "")
        if (rule := _RULES.get(word)) and (reading := rule(tag, before, after)):
            found[position] = reading
        if (ending := _ending(word, tag)) is not None:
            found[position + len(word) - 1] = ending
        if tag == "nr" and len(word) == 3 and word[0] in _SURNAMES:
            found[position] = _SURNAMES[word[0]]
        position += len(word)
    return found | {index: ("yi", tone) for index, tone in _one(clause)}


def _ending(word: str, tag: str) -> Reading | None:
    """The last character of a longer word that would be taken for a particle: 土地, 获得, 目的, 酒吧, 金额."""
    last = word[-1]
    if len(word) < 2 or last not in _NOT_ALWAYS_PARTICLES:
        return None
    if last == "得":
        return ("de", "2") if word in _DE_2 else ("de", "5")
    if last == "地":
        return ("di", "4") if tag[:1] in {"n", "s", "v", "j", "i", "l"} and word[:2] != word[1:3] else ("de", "5")
    reading = dictionary(word)[-1]
    return reading if reading[1] != "5" else None


def _guo(tag: str, before: Word, after: Word) -> Reading | None:
    """过了十年: pass. 去过: have been."""
    return ("guo", "4") if before[1][:1] not in {"v", "a"} else None


def _wei(tag: str, before: Word, after: Word) -> Reading | None:
    """为人民服务: for. 概率为零: be."""
    return ("wei", "2") if before[1][:1] in {"v", "n", "m"} else ("wei", "4")


def _li(tag: str, before: Word, after: Word) -> Reading | None:
    """教室里: in."""
    return ("li", "5") if tag == "f" and before[1][:1] in {"n", "s", "r"} else None


def _de(tag: str, before: Word, after: Word) -> Reading:
    """我得走了: must. 得了奖: get. 跑得快: how."""
    if after[0] in {"了", "过", "到"} and before[1][:1] != "v":
        return "de", "2"
    must = before[1][:1] in {"", "r", "d", "n", "t", "x"} and after[1][:1] in {"v", "d", "p"}
    return ("dei", "3") if must else ("de", "5")


def _di(tag: str, before: Word, after: Word) -> Reading | None:
    """高兴地说: how. 一块地: land."""
    return ("de", "5") if tag.startswith("u") and after[0][:1].isalpha() else None


def _chang(tag: str, before: Word, after: Word) -> Reading | None:
    """很长: long. 长高: grow."""
    if before[1][:1] in {"d", "m", "q", "z"} or before[0] in _VERY:
        return "chang", "2"
    return ("zhang", "3") if after[0][:1] in set("高大胖满成出得着了") else None


def _xing(tag: str, before: Word, after: Word) -> Reading | None:
    """一行字: row. 不行: do."""
    counted = before[1][:1] == "m" or before[0][-1:] in set("一二两三四五六七八九十几每这那第")
    return ("hang", "2") if counted else None


def _zhuan(tag: str, before: Word, after: Word) -> Reading | None:
    """绕着转: turn round. 转身: turn."""
    return ("zhuan", "4") if not after[0][:1].isalpha() or after[0] in {"动", "圈", "了", "着", "来"} else None


def _one(clause: str) -> Iterator[tuple[int, str]]:
    """The tone of 一 in numbers: its own, but before 百, 千, 万 and 亿."""
    for match in _ONE_ITSELF.finditer(clause):
        yield match.end() - 1, "1"
    for match in re.finditer(r"(?<![零一二三四五六七八九十第初幺])一(?=([百千])|[万亿])", clause):
        yield match.start(), "4" if match[1] else "2"


_ONE_ITSELF = re.compile(
    r"(?<=[零一二三四五六七八九十第初幺月])一|(?<=[零一二三四五六七八九十]点)一|一(?=[零一二三四五六七八九十月]|点[零一二三四五六七八九])"
)
_VERY = frozenset("很太最更好不多较挺超特真越够") | {"那么", "这么", "非常", "比较", "十分", "极其"}
_RULES = {"得": _de, "地": _di, "长": _chang, "行": _xing, "转": _zhuan, "过": _guo, "为": _wei, "里": _li}
_NOT_ALWAYS_PARTICLES = "地得的吧额滴哈"
_DE_2 = frozenset(
    [
        "获得",
        "取得",
        "赢得",
        "心得",
        "难得",
        "夺得",
        "所得",
        "求得",
        "博得",
        "不得",
        "习得",
        "应得",
        "购得",
        "一举两得",
        "罪有应得",
    ]
)
_SURNAMES: dict[str, Reading] = {
    "曾": ("zeng", "1"), "单": ("shan", "4"), "朴": ("piao", "2"), "任": ("ren", "2"), "华": ("hua", "4"), "仇": ("qiu", "2"),
    "解": ("xie", "4"), "查": ("zha", "1"), "盖": ("ge", "3"), "区": ("ou", "1"), "翟": ("zhai", "2"), "冼": ("xian", "3"),
    "燕": ("yan", "1"), "应": ("ying", "1"), "覃": ("qin", "2"), "乐": ("yue", "4"), "纪": ("ji", "3"),
}  # fmt: skip
