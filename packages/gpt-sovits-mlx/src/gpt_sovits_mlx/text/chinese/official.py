"""The official front end's Chinese normalisation, for parity: defects included.

The rules are public knowledge and come from PaddleSpeech's `zh_normalization` as GPT-SoVITS runs them. They
are applied one after the other, each to what the ones before left. Known defects: a phone number's hyphen is read 减,
8:30-9:15 is read as if both ended at the first one's half, 2月 is 两月, a bare number of three or more digits is spelt.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from .characters import GREEK, NUMBERED, half_width, simplify
from .numbers import cardinal, number, spell

_Rule = tuple[re.Pattern[str], Callable[[re.Match[str]], str]]

_REMOVED = re.compile(r"[—《》【】<>{}()（）#&@“”^_|\\]")
_REMOVED_AFTER = re.compile(r"[-—《》【】<=>{}()（）#&@“”^_|\\]")
_CLAUSE_END = re.compile(r"([：、，；。？！,;?!][”’]?)")

_NUMBER = r"-?\d+(?:\.\d+)?"
_UNITS = {
    "cm2": "平方厘米", "cm²": "平方厘米", "cm3": "立方厘米", "cm³": "立方厘米", "cm": "厘米", "db": "分贝", "ds": "毫秒",
    "kg": "千克", "km": "千米", "m2": "平方米", "m²": "平方米", "m³": "立方米", "m3": "立方米", "ml": "毫升", "m": "米",
    "mm": "毫米", "s": "秒",
}  # fmt: skip
_RANGE_UNIT = "(?:%|°C|℃|度|摄氏度|" + "|".join(_UNITS) + ")"
_MEASURE_WORDS = (
    "[处台架枚趟幅平方堵间床株批项例列篇栋注亩封艘把目套段人所朵匹张座回场尾条个首阙阵网炮顶丘棵只支袭辆挑担颗壳窠曲墙群腔砣"
    "客贯扎捆刀令打手罗坡山岭江溪钟队单双对出口头脚板跳枝件贴针线管名位身堂课本页家户层丝毫厘分钱两斤铢石钧锱忽寸尺丈里寻常铺程"
    "米撮勺合升斗盘碗碟叠桶笼盆盒杯斛锅簋篮罐瓶壶卮盏箩箱煲啖袋钵年月日季刻时周天秒旬纪岁世更夜春夏秋冬代伏辈丸泡粒幢堆根道面片"
    "块元亿万千百吨角毛]|微[克米]|公分|小时|美元|十吨"
)
_POWER = "[⁰¹²³⁴⁵⁶⁷⁸⁹ˣʸⁿ]"
_OPERAND = rf"(?:-?\d+(?:\.\d+)?{_POWER}*|\.\d+{_POWER}*|[A-Za-z]{_POWER}*)"
_OPERATORS = {"+": "加", "-": "减", "×": "乘", "÷": "除", "=": "等于"}
_CLOCK = r"([01]?[0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9]))?"


def normalize(text: str) -> str:
    """Chinese characters and the punctuation `!?…,.-`, as the official code has them."""
    text = _REMOVED.sub("", text.replace(" ", ""))
    clauses = re.split(r"\n+", _CLAUSE_END.sub(r"\1\n", text).strip())
    return "".join(_clause(clause.strip()) for clause in clauses)


def _clause(text: str) -> str:
    text = half_width(simplify(text))
    for pattern, say in _RULES_BEFORE:
        text = pattern.sub(say, text)
    for unit, word in _UNITS.items():
        text = text.replace(unit, word)
    while _OPERATION.search(text):
        text = _OPERATION.sub(lambda match: match[1] + _OPERATORS[match[2]] + match[3], text)
    for pattern, say in _RULES_AFTER:
        text = pattern.sub(say, text)
    text = text.replace("/", "每").translate(_LAST)
    return _REMOVED_AFTER.sub("", text)


def _signed(text: str, sign: str = "负") -> str:
    return sign + number(text[1:]) if text.startswith("-") else number(text)


def _two_digits(text: str) -> str:
    return ("零" if text.startswith("0") else "") + number(text.lstrip("0"))


def _time(hour: str, minute: str, second: str | None, *, half: bool) -> str:
    words = number(hour) + "点"
    if minute != "00":
        words += "半" if half else _two_digits(minute) + "分"
    return words + (_two_digits(second) + "秒" if second and second != "00" else "")


def _clock(match: re.Match[str]) -> str:
    return _time(match[1], match[2], match[3], half=match[2] == "30")


def _clock_range(match: re.Match[str]) -> str:
    # The second time ends on 半 when the first one does: the official code looks at the wrong minute.
    half = match[2] == "30"
    return _time(match[1], match[2], match[3], half=half) + "至" + _time(match[4], match[5], match[6], half=half)


def _date(match: re.Match[str]) -> str:
    year, month, day, unit = match.groups()
    return spell(year) + "年" + (cardinal(month) + "月" if month else "") + (cardinal(day) + unit if day else "")


def _telephone(match: re.Match[str]) -> str:
    return "，".join(spell(part, "幺") for part in match[0].split("-"))


def _measured(match: re.Match[str]) -> str:
    words = cardinal(match[1])
    return ("两" if words == "二" else words) + (match[2] or "").replace("+", "多")


def _power(match: re.Match[str]) -> str:
    return "的" + "".join(_SUPERSCRIPTS[character] for character in match[0]) + "次方"


_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹ˣʸⁿ", "0123456789xyn", strict=True))
_LAST = str.maketrans(NUMBERED | GREEK | {"+": "加", "-": "减", "×": "乘", "÷": "除", "=": "等"})
_OPERATION = re.compile(rf"({_OPERAND})([+\-×÷=])({_OPERAND})")

_RULES_BEFORE: tuple[_Rule, ...] = (
    (re.compile(r"(\d{4}|\d{2})年(?:(0?[1-9]|1[0-2])月)?(?:(0?[1-9]|[12][0-9]|30|31)([日号]))?"), _date),
    (
        re.compile(r"(\d{4})([- /.])(0[1-9]|1[012])\2(0[1-9]|[12][0-9]|3[01])"),
        lambda match: f"{spell(match[1])}年{cardinal(match[3])}月{cardinal(match[4])}日",
    ),
    (re.compile(_CLOCK + "[~-]" + _CLOCK), _clock_range),
    (re.compile(_CLOCK), _clock),
    (
        re.compile(rf"({_NUMBER}|\.\d+){_RANGE_UNIT}~({_NUMBER}|\.\d+){_RANGE_UNIT}"),
        lambda match: match[0].replace("~", "至"),
    ),
    (
        re.compile(r"(-?\d+(?:\.\d+)?)(°C|℃|度|摄氏度)"),
        lambda match: _signed(match[1], "零下") + ("摄氏度" if match[2] == "摄氏度" else "度"),
    ),
)
_RULES_AFTER: tuple[_Rule, ...] = (
    (re.compile(f"{_POWER}+"), _power),
    (
        re.compile(r"(-?)(\d+)/(\d+)"),
        lambda match: ("负" if match[1] else "") + f"{cardinal(match[3])}分之{cardinal(match[2])}",
    ),
    (
        re.compile(r"(-?)(\d+(?:\.\d+)?)%"),
        lambda match: ("负" if match[1] else "") + "百分之" + number(match[2]),
    ),
    (
        re.compile(r"(?<!\d)(?:\+?86 ?)?1(?:[38]\d|5[0-35-9]|7[678]|9[89])\d{8}(?!\d)"),
        lambda match: "，".join(spell(part, "幺") for part in match[0].strip("+").split()),
    ),
    (re.compile(r"(?<!\d)(?:0(?:10|2[1-3]|[3-9]\d{2})-?)?[1-9]\d{6,7}(?!\d)"), _telephone),
    (re.compile(r"400-?\d{3}-?\d{4}"), _telephone),
    (
        re.compile(rf"(?<![\d+\-×÷=])({_NUMBER})[-~]({_NUMBER})(?![\d+\-×÷=])"),
        lambda match: f"{_signed(match[1])}到{_signed(match[2])}",
    ),
    (re.compile(r"-(\d+)"), lambda match: "负" + cardinal(match[1])),
    (
        re.compile(r"\d+\.\d+(?:\.\d+)?(?:\.\d+)+"),
        lambda match: "".join("点" if character == "." else spell(character) for character in match[0]),
    ),
    (re.compile(r"-?\d+\.\d+|\.\d+"), lambda match: _signed(match[0])),
    (re.compile(rf"(\d+)([多余几+])?(?={_MEASURE_WORDS})"), _measured),
    (re.compile(r"\d{3,}"), lambda match: spell(match[0], "幺")),
    (re.compile(rf"{_NUMBER}|\.\d+"), lambda match: _signed(match[0])),
)
