"""Chinese numbers and signs in words, before a text is cut into languages and sentences.

So a fraction, a minus sign or a grouped number is still whole when it is read. Numbers are Chinese where Chinese is
about: between two English words they stay English (iPhone 15 Pro), and where there is kana, hangul or no Chinese at
all the other front ends read them. The rules are applied one after the other to a clause.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from ..spans import HAN, HANGUL, KANA, LATIN
from .characters import half_width, simplify
from .numbers import cardinal, number, spell

_Say = Callable[[re.Match[str]], str]

# Bounded, so that no rule looks further than that: what is longer isn't language.
_CLAUSE = re.compile(r"[^。！？!?；，\n]{0,1000}[。！？!?；，\n]*")
_HAN = re.compile(f"[{HAN}]")
_HAN_RUN = re.compile(f"[{HAN}]+")
_OTHER_CJK = re.compile(f"[{KANA}{HANGUL}]")
_LETTER = re.compile(f"[{LATIN}]")
_SIGNS = re.compile(r"[\d&=+%⁰¹²³⁴⁵⁶⁷⁸⁹]")
_DIGIT = re.compile(r"[0-9０-９½¼¾⅓⅔①-⑳Ⅰ-Ⅻ]")

_MEASURE = (
    "(?:公里|公斤|公分|公顷|小时|分钟|世纪|英里|英寸|英尺|毫米|厘米|毫升|平方|立方|美元|欧元|英镑|日元|"
    "[个只位名条件张本台辆座所间栋套双对把块片颗粒棵株朵头匹根支枝瓶杯碗盘盒袋箱包桶罐壶锅份篇首幅封页章节段句字词行排列层楼"
    "次遍趟回场顿番阵步圈轮届期版级岁天周年月日号时点分秒刻元角毛钱斤两吨克米尺寸丈里亩升斗度倍成折人家户口批组队班群股滴"
    "道面门种类样项笔部集季代世环站路万亿千百余多几来平顷艘架枚发扇盏顶具尊滩团束串打卷盆堆捆摞叠])"
)
# 二, not 两: dates, numbers of things in a row, ordinals.
_STAYS_TWO = "(?:月|日|号|楼|路|线|班|级|年级|等|环|维|中|队|组|排|进制|次方|元论|成|百|节|章|期|季|代|届|世|版|股|刻)"

_N = r"(?:\d{1,3}(?:,\d{3})++(?:\.\d++)?|\d++(?:\.\d++)?)"
_BEFORE = r"(?<![\d.,])"
_SIGN = r"(?:(?<![\d)A-Za-z%℃])-)?"
_TO = r"\s*(?:-|~|—|–|至|到)\s*"

_UNITS = {
    "km/h": "千米每小时", "m/s": "米每秒", "km²": "平方千米", "km2": "平方千米", "m²": "平方米", "m2": "平方米",
    "㎡": "平方米",
    "m³": "立方米", "m3": "立方米", "cm²": "平方厘米", "cm2": "平方厘米", "cm³": "立方厘米", "cm3": "立方厘米",
    "km": "千米", "cm": "厘米", "mm": "毫米", "dm": "分米", "nm": "纳米", "μm": "微米", "um": "微米", "m": "米",
    "kg": "千克", "mg": "毫克", "g": "克", "t": "吨", "ml": "毫升", "mL": "毫升", "L": "升", "l": "升",
    "ms": "毫秒", "min": "分钟", "s": "秒", "h": "小时", "kWh": "千瓦时", "kW": "千瓦", "mAh": "毫安时",
    "GHz": "吉赫兹", "MHz": "兆赫兹", "kHz": "千赫兹", "Hz": "赫兹", "dB": "分贝", "db": "分贝", "kcal": "千卡",
    "kPa": "千帕", "MPa": "兆帕", "Pa": "帕",
}  # fmt: skip
_UNIT = "|".join(sorted(map(re.escape, _UNITS), key=len, reverse=True))
_DEGREES = {"℃": "摄氏度", "℉": "华氏度", "度": "度", "摄氏度": "摄氏度", "华氏度": "华氏度", "°": "度"}
_MONEY = {
    "US$": "美元", "HK$": "港元", "NT$": "新台币", "A$": "澳元", "C$": "加元", "S$": "新加坡元", "¥": "元", "$": "美元",
    "€": "欧元", "£": "英镑", "₩": "韩元", "₽": "卢布", "₹": "卢比", "฿": "泰铢",
}  # fmt: skip
_FRACTIONS = {"½": "1/2", "¼": "1/4", "¾": "3/4", "⅓": "1/3", "⅔": "2/3"}
_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789", strict=True))
_OPERATORS = {
    "+": "加", "-": "减", "−": "减", "×": "乘", "*": "乘", "÷": "除以", "=": "等于", "≈": "约等于", "≠": "不等于",
    "≥": "大于等于", "≤": "小于等于", ">": "大于", "<": "小于",
}  # fmt: skip
_CALLED = "拨打|拨|打|致电|电话|热线|呼叫|客服|客服电话"
_NUMBERED = (
    "号码|编号|单号|学号|工号|卡号|账号|帐号|密码|验证码|房间号?|房号|邮编|门牌号?|QQ号?|车牌号?|尾号|身份证号?|口令|代码|航班|车次"
)  # fmt: skip


def say_numbers(text: str, language: str = "auto") -> str:
    """A text whose Chinese clauses have no digits left; other clauses are returned as they are.

    Chinese is simplified on the way, Cantonese isn't: 隻 and 只 are two words there.
    """
    language = language.removeprefix("all_")
    if language in ("en", "ja", "ko"):
        return text
    say = _cantonese if language.endswith("yue") else _clause
    elsewhere = _HAN.search(text) is not None or _LETTER.search(text) is None
    return "".join(
        say(clause) if _is_chinese(clause, language, elsewhere) else clause for clause in _CLAUSE.findall(text)
    )


def _is_chinese(clause: str, language: str, elsewhere: bool) -> bool:
    if language.startswith("auto") and _OTHER_CJK.search(clause):
        return False
    return _HAN.search(clause) is not None or (
        elsewhere and _LETTER.search(clause) is None and bool(_DIGIT.search(clause))
    )


def _clause(text: str) -> str:
    text = half_width(simplify(text)).translate(_ALIKE)
    if not _SIGNS.search(text):
        return text
    text = _ENGLISH.sub(_keep_english, text)
    for pattern, say in _RULES:
        text = pattern.sub(say, text)
    return text.translate(_KEPT_BACK)


def _cantonese(text: str) -> str:
    """A clause with its numbers in words, and the characters around them as they were written."""
    said = _clause(text)
    pieces, end = [], 0
    for run in _HAN_RUN.findall(text):
        plain = simplify(run)
        start = said.find(plain, end)
        if start >= 0:
            pieces += [said[end:start], run]
            end = start + len(plain)
    return "".join(pieces) + said[end:]


# Digits between English letters are hidden from the rules in a private area.
_HIDDEN = str.maketrans({str(digit): chr(0xF000 + digit) for digit in range(10)})
_KEPT_BACK = {0xF000 + digit: str(digit) for digit in range(10)}
_ENGLISH = re.compile(r"(?<![A-Za-z\d])[A-Za-z](?:[A-Za-z]++|['’&.\- ](?=[A-Za-z\d])|\d++(?=[A-Za-z]| [A-Za-z]{2}))*+")
_ALIKE = str.maketrans(
    {"％": "%", "＋": "+", "－": "-", "−": "-", "＝": "=", "／": "/", "．": ".", "～": "~", "〜": "~", "∼": "~", "￥": "¥",
     "＄": "$", "＆": "&", "＞": ">", "＜": "<", "µ": "μ", **_FRACTIONS,
     **{chr(0x215F + n): cardinal(str(n)) for n in range(1, 13)}, **{chr(0x245F + n): cardinal(str(n)) for n in range(1, 21)}}
)  # fmt: skip


def _keep_english(match: re.Match[str]) -> str:
    return match[0].translate(_HIDDEN)


def _plain(text: str) -> str:
    return text.replace(",", "")


def _read(text: str) -> str:
    """A number with an optional sign and grouping commas; two thousand is 两千."""
    sign, text = ("负", text[1:]) if text.startswith("-") else ("", text)
    words = number(_plain(text))
    if words[:2] in ("二千", "二万", "二亿"):
        words = "两" + words[1:]
    return sign + words


def _count(text: str) -> str:
    """A number before a measure word: 2 is 两."""
    return "两" if text == "2" else _read(text)


def _degrees(text: str, unit: str) -> str:
    return ("零下" + _read(text[1:]) if text.startswith("-") else _count(text)) + _DEGREES[unit]


def _time(hour: str, minute: str, second: str | None) -> str:
    words = _count(hour.lstrip("0") or "0") + "点"
    if second is None and minute == "30":
        return words + "半"
    if minute != "00" or second:
        words += ("零" if minute.startswith("0") and minute != "00" else "") + cardinal(minute) + "分"
    return words + (cardinal(second) + "秒" if second else "")


def _date(match: re.Match[str]) -> str:
    return f"{spell(match[1])}年{cardinal(match[3])}月{cardinal(match[4])}日"


def _groups(match: re.Match[str]) -> str:
    """A telephone number, with a short pause between its groups."""
    return "，".join(spell(group, "幺") for group in re.findall(r"\d+", match[0].replace("+86", "")))


def _spelt(match: re.Match[str]) -> str:
    return match[1] + spell(match[2], "幺")


def _percent(text: str) -> str:
    return "负百分之" + number(_plain(text[1:])) if text.startswith("-") else "百分之" + number(_plain(text))


def _money(match: re.Match[str]) -> str:
    sign = "负" if match[1] or match[3] else ""
    return sign + _count(match[4]) + (match[5] or "") + (_MONEY[match[2]] if not match[6] else match[6])


def _expression(match: re.Match[str]) -> str:
    operand = rf"{_SIGN}{_N}|[A-Za-z]|[（）()]"
    tokens = re.findall(rf"{operand}|[+\-×*÷/=≈≠≥≤<>]", match[0])
    words, value_before = [], False
    for token in tokens:
        if token in _OPERATORS and value_before:
            words.append(_OPERATORS[token])
        elif token[-1].isdigit():
            words.append(_read(token))
        else:
            words.append({"-": "负", "/": "除以"}.get(token, token))
        value_before = token not in _OPERATORS
    return "".join(words)


def _power(match: re.Match[str]) -> str:
    exponent = "".join(_SUPERSCRIPTS[digit] for digit in match[2])
    return match[1] + {"2": "的平方", "3": "的立方"}.get(exponent, f"的{cardinal(exponent)}次方")


def _bare(match: re.Match[str]) -> str:
    text = _plain(match[0])
    digits = text.lstrip("-")
    long = "." not in digits and (len(digits) > 13 or (len(digits) > 1 and digits[0] == "0"))
    return ("负" if text.startswith("-") else "") + (spell(digits) if long else _read(digits))


_CLOCK = r"(?<![\d:.])([01]?\d|2[0-4]):([0-5]\d)(?::([0-5]\d))?(?![\d:])"
_RULES: tuple[tuple[re.Pattern[str], _Say], ...] = tuple(
    (re.compile(pattern), say)
    for pattern, say in (
        (r"°\s?C|º\s?C", lambda m: "℃"),
        (r"°\s?F|º\s?F", lambda m: "℉"),
        (r"(?<=\d)：(?=\d)", lambda m: ":"),
        # Dates and years.
        (r"(?<!\d)(\d{4})([-/.])(0?[1-9]|1[0-2])\2([12]\d|3[01]|0?[1-9])(?!\d)", _date),
        (rf"(?<!\d)(\d{{4}}){_TO}(\d{{4}})(?=年|学年|赛季|财年)", lambda m: f"{spell(m[1])}到{spell(m[2])}"),
        (r"(?<!\d)(\d{4})(?=年|级|届|款|财年|赛季|学年)", lambda m: spell(m[1])),
        (r"(?<!\d)(\d\d)(?=年[01]?\d月)", lambda m: spell(m[1])),
        (
            r"(?<!\d)([06789]\d)(?=年(?!代|前|后|来|间|以|内|之|的历史|的时间|的经验|的老|的婚姻|历史|级))",
            lambda m: spell(m[1]),
        ),
        (r"([生始建立业]于|截至|自从)((?:1[89]|20)\d\d)(?![\d.,])", lambda m: m[1] + spell(m[2])),
        (
            r"(?<![\d/])(1[0-2]|0?[1-9])/([12]\d|3[01]|0?[1-9])(?=日|号)",
            lambda m: f"{cardinal(m[1])}月{cardinal(m[2])}",
        ),
        # Times and scores.
        (_CLOCK + _TO + _CLOCK, lambda m: _time(m[1], m[2], m[3]) + "到" + _time(m[4], m[5], m[6])),
        (r"(比分[^\d]{0,4})(\d+):(\d+)", lambda m: f"{m[1]}{_read(m[2])}比{_read(m[3])}"),
        (_CLOCK, lambda m: _time(m[1], m[2], m[3])),
        (r"(?<![\d:.])(\d{1,4}):(\d{1,4})(?![\d:])", lambda m: f"{_read(m[1])}比{_read(m[2])}"),
        # Telephone numbers and what is spelt like them.
        (r"(?<!\d)(?:\+?86[- ]?)?1[3-9]\d([- ]?)\d{4}\1\d{4}(?!\d)", _groups),
        (r"(?<!\d)0\d{2,3}-\d{7,8}(?!\d)|(?<!\d)0(?:10|2\d|[3-9]\d\d)[2-9]\d{6,7}(?!\d)", _groups),
        (r"(?<!\d)[48]00-?\d{3}-?\d{4}(?!\d)", _groups),
        (rf"((?:{_CALLED})(?:了|是|为|：|:)?\s?)(\d{{3,12}})(?!\d|\.\d|{_MEASURE})", _spelt),
        (r"(?<!\d)()(110|119|120|12306|12315|12345)(?=电话|热线|报警|急救|平台)", _spelt),
        (rf"((?:{_NUMBERED})(?:是|为|：|:|码)?\s?[A-Za-z]*)(\d{{2,20}})(?![\d.])", _spelt),
        (r"(?<![\d.])()(\d{3,4})(?=房间?|室|路公?交?车?|次列车|次航班|次高铁|包厢)", _spelt),
        (
            r"(?<![\d.])()(\d{17}[\dXx])(?![\d.])",
            lambda m: spell(m[2][:-1], "幺") + (spell(m[2][-1], "幺") if m[2][-1].isdigit() else m[2][-1]),
        ),
        # Versions and addresses: more than one point.
        (r"(?<![\d.])\d++(?:\.\d++){2,}", lambda m: "点".join(map(spell, m[0].split(".")))),
        (r"([≈≥≤≠])\s?(?=-?\d)", lambda m: _OPERATORS[m[1]]),
        # Ranges with units.
        (
            rf"{_BEFORE}({_SIGN}{_N})\s?(?:℃|℉|度)?{_TO}(-?{_N})\s?(℃|℉|摄氏度|华氏度|度)",
            lambda m: _degrees(m[1], m[3])[: -len(_DEGREES[m[3]])] + "到" + _degrees(m[2], m[3]),
        ),
        (rf"{_BEFORE}({_SIGN}{_N})%{_TO}(-?{_N})%", lambda m: f"{_percent(m[1])}到{_percent(m[2])}"),
        (rf"{_BEFORE}({_N}){_TO}({_N})%", lambda m: f"百分之{_read(m[1])}到{_read(m[2])}"),
        (
            rf"{_BEFORE}({_N})\s?(?:{_UNIT})?{_TO}({_N})\s?({_UNIT})(?![A-Za-z])",
            lambda m: f"{_count(m[1])}到{_count(m[2])}{_UNITS[m[3]]}",
        ),
        # Money, temperature, percentages, units.
        (
            rf"(?<![A-Za-z])(-?)(US\$|HK\$|NT\$|A\$|C\$|S\$|[¥$€£₩₽₹฿])\s?(-?)({_N})"
            r"([万亿千百]{0,2})(元|块|美元|美金|欧元|英镑|港元|日元)?",
            _money,
        ),
        (rf"{_BEFORE}({_SIGN}{_N})\s?(℃|℉|摄氏度|华氏度|度|°)", lambda m: _degrees(m[1], m[2])),
        (rf"{_BEFORE}({_SIGN}{_N})%", lambda m: _percent(m[1])),
        (rf"{_BEFORE}({_SIGN})({_N})‰", lambda m: ("负" if m[1] else "") + "千分之" + number(_plain(m[2]))),
        (
            rf"{_BEFORE}({_SIGN})({_N})\s?({_UNIT})(?![A-Za-z\d])",
            lambda m: ("负" if m[1] else "") + _count(m[2]) + _UNITS[m[3]],
        ),
        # Sums: with an equals sign, or with a sign that can't be anything else.
        (r"([A-Za-z)）\d])([⁰¹²³⁴⁵⁶⁷⁸⁹]+)", _power),
        (
            rf"(?<![A-Za-z\d.+×*÷])[(（]?{_SIGN}(?:{_N}|[A-Za-z])(?:\s?[+\-×*÷/]\s?[(（]?(?:-?{_N}|[A-Za-z])[)）]?){{0,20}}+"
            rf"\s?[=≈≠≥≤<>]\s?(?:-?{_N}|[A-Za-z](?![A-Za-z]))(?:\s?[+\-×*÷/]\s?(?:{_N}|[A-Za-z](?![A-Za-z]))){{0,20}}+",
            _expression,
        ),
        (rf"{_BEFORE}{_N}(?:\s?[+×*÷]\s?{_N})++", _expression),
        (r"([<>=])\s?(?=-?\d)", lambda m: _OPERATORS[m[1]]),
        (r"±\s?(?=\d)", lambda m: "正负"),
        # Fractions.
        (rf"{_BEFORE}(\d++) (\d++)/(\d++)(?!\d)", lambda m: f"{_read(m[1])}又{_read(m[3])}分之{_read(m[2])}"),
        (
            rf"{_BEFORE}({_SIGN})(\d++)/(\d++)(?![\d/])",
            lambda m: ("负" if m[1] else "") + f"{_read(m[3])}分之{_read(m[2])}",
        ),
        # Ordinals, ranges, letters with numbers.
        (
            rf"第\s?(\d++)(?:{_TO}(\d++))?(?![.\d])",
            lambda m: "第" + cardinal(m[1]) + (f"到{cardinal(m[2])}" if m[2] else ""),
        ),
        (
            rf"{_BEFORE}({_N}){_TO}({_N})(?=\s?{_MEASURE})(?!\s?{_STAYS_TWO})",
            lambda m: f"{_count(m[1])}到{_count(m[2])}",
        ),
        (rf"{_BEFORE}({_SIGN}{_N}){_TO}({_N})(?![\d-])", lambda m: f"{_read(m[1])}到{_read(m[2])}"),
        (r"(?<=[A-Za-z])[- ]?(\d{3,})(?![\d.,])", lambda m: spell(m[1])),
        (rf"(?<=[A-Za-z])-(?={_N})", lambda m: " "),
        # Counted things.
        (rf"(?<![\d.,第])2(?=\s?(?:{_MEASURE}))(?!\s?{_STAYS_TWO})", lambda m: "两"),
        (rf"({_N})\+(?=\s?{_MEASURE})", lambda m: _read(m[1]) + "多"),
        (rf"{_SIGN}{_N}", _bare),
        (r"\d", lambda m: spell(m[0])),
        # Signs between Chinese words.
        (rf"(?<=[元块米里吨次人斤克度升万亿时天月年])/(?=[{HAN}])", lambda m: "每"),
        (rf"(?<=[{HAN}])\s?&\s?(?=[{HAN}])", lambda m: "和"),
        (rf"(?<=[{HAN}])\s?[=＝]\s?(?=[{HAN}])", lambda m: "等于"),
        (rf"(?<=[{HAN}])\+(?=[{HAN}])", lambda m: "加"),
        (rf"(?<=[{HAN}])%", lambda m: "百分号"),
    )
)
