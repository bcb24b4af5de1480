"""The changes of tones, one rule at a time."""

import pytest

from gpt_sovits_mlx.text.chinese import pinyin, tones
from gpt_sovits_mlx.text.chinese.numbers import cardinal, number, spell

pytestmark = pytest.mark.text


@pytest.mark.parametrize(
    ("word", "tag", "before", "after"),
    [
        ("不怕", "v", "44", "24"),
        ("不好", "a", "43", "43"),
        ("看不懂", "v", "443", "453"),
        ("一段", "m", "14", "24"),
        ("一天", "m", "11", "41"),
        ("一零零", "m", "122", "122"),
        ("第一名", "m", "412", "412"),
        ("看一看", "v", "414", "454"),
        ("奶奶", "n", "33", "35"),
        ("人人", "n", "22", "22"),
        ("桌子", "n", "13", "15"),
        ("男子", "n", "23", "23"),
        ("我们", "r", "32", "35"),
        ("了", "ul", "3", "5"),
        ("了", "v", "3", "3"),
        ("桌上", "s", "14", "15"),
        ("桌上", "n", "14", "14"),
        ("回来", "v", "22", "25"),
        ("三个", "m", "14", "15"),
        ("豆腐", "n", "43", "45"),
        ("好吧", "y", "31", "35"),
        ("你好", "l", "33", "23"),
        ("纸老虎", "n", "333", "323"),
        ("蒙古包", "n", "331", "231"),
        ("展览馆", "n", "333", "223"),
        ("理想美好", "l", "3333", "2323"),
        (",", "x", [""], [""]),
    ],
)
def test_a_words_tones(word, tag, before, after):
    assert tones.change(word, tag, list(before)) == list(after)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([("不", "d"), ("怕", "v")], ["不怕"]),
        ([("怕", "v"), ("不", "d")], ["怕", "不"]),
        ([("听", "v"), ("一", "m"), ("听", "v")], ["听一听"]),
        ([("书", "n"), ("一", "m"), ("书", "n")], ["书", "一书"]),
        ([("一", "m"), ("天", "q")], ["一天"]),
        ([("看", "v"), ("看", "v")], ["看看"]),
        ([("你", "r"), ("好", "a")], ["你好"]),
        ([("我", "r"), ("想", "v"), ("走", "v")], ["我想走"]),
        ([("很", "d"), ("远方", "n")], ["很远方"]),
        ([("奶奶", "n"), ("好", "a")], ["奶奶", "好"]),
        ([("小院", "n"), ("儿", "n")], ["小院儿"]),
    ],
)
def test_words_that_are_read_together(words, expected):
    found = tones.merge(words, lambda word, _: [tone for _, tone in pinyin.readings(word)])
    assert [word for word, _ in found] == expected


@pytest.mark.parametrize(
    ("word", "tag", "expected"),
    [("小院儿", "nr", True), ("花儿", "n", False), ("一会儿", "m", True), ("老儿", "a", False), ("好女儿", "n", False)],
)
def test_er(word, tag, expected):
    assert tones.er_colours(word, tag) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hang2", ("hang", "2")),
        ("lü4", ("lv", "4")),
        ("de", ("de", "5")),
        ("n2", ("n", "2")),
        ("foo1", None),
        ("a6", None),
        ("", None),
    ],
)
def test_pinyin(text, expected):
    assert pinyin.parse(text) == expected


def test_phones_of_a_reading():
    assert pinyin.phones(("yuan", "2")) == ["y", "van2"]
    assert pinyin.phones(("si", "4")) == ["s", "i04"]
    assert pinyin.phones(("n", "2")) == ["EE", "en2"]
    assert pinyin.phones((",", "")) == [","]


@pytest.mark.parametrize(
    ("digits", "expected"),
    [
        ("0", "零"), ("000", "零"), ("10", "十"), ("15", "十五"), ("110", "一百一十"), ("105", "一百零五"), ("1005", "一千零五"),
        ("10010", "一万零一十"), ("120000000", "一亿二千万"), ("", ""),
    ],
)  # fmt: skip
def test_whole_numbers(digits, expected):
    assert cardinal(digits) == expected


def test_other_numbers():
    assert number("3.14") == "三点一四"
    assert number(".5") == "零点五"
    assert number("2.500") == "二点五零"
    assert spell("101", "幺") == "幺零幺"
