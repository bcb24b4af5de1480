"""The exact mode against the official front end: phones, ids, word2ph, normalised texts, segments, sentences."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from gpt_sovits_mlx.text import TextFrontend, sentences, symbols, to_ids, uses_official_detector
from gpt_sovits_mlx.text.chinese.reading import normalize, pronounce
from gpt_sovits_mlx.text.official_segmentation import segment
from gpt_sovits_mlx.text.splits import METHODS
from mlx_core.errors import InputError

pytestmark = pytest.mark.text

GOLDENS = Path(__file__).parents[1] / "goldens" / "text"
OFFICIAL = json.loads((GOLDENS / "official.json").read_text(encoding="utf-8"))
SPLITS = json.loads((GOLDENS / "splits.json").read_text(encoding="utf-8"))
SEGMENTS = json.loads((GOLDENS / "segments.json").read_text(encoding="utf-8"))

# What a language needs besides the package itself.
NEEDED = {"ja": "pyopenjtalk", "ko": "MeCab", "yue": "ToJyutping"}
# Here the official detector takes Chinese for Japanese, or for nothing it knows.
DETECTED = {
    ("zh", "这个GPU"),
    ("auto", "这个GPU"),
    ("auto", "我今天用"),
    ("auto", "你好hel"),
    ("auto", "OK，那我"),
    ("auto", "iPhone "),
}

needs_detector = pytest.mark.skipif(not uses_official_detector(), reason="needs gpt-sovits-mlx[exact]")


def cases():
    for item in OFFICIAL:
        for version in ("v1", "v2"):
            if version in item:
                expected = item["v2"] if item[version] == "v2" else item[version]
                languages = {part[0] for part in expected["segments"]}
                missing = [NEEDED[name] for name in languages & set(NEEDED) if find_spec(NEEDED[name]) is None]
                if (item["language"], item["text"][:5]) in DETECTED or (item["language"], item["text"][:7]) in DETECTED:
                    missing += [] if uses_official_detector() else ["split_lang"]
                marks = [pytest.mark.skip(reason=f"needs {', '.join(missing)}")] if missing else []
                name = f"{version}-{item['language']}-{item['text'][:12]}"
                yield pytest.param(version, item["language"], item["text"], expected, id=name, marks=marks)


@pytest.mark.parametrize(("version", "language", "text", "expected"), list(cases()))
def test_exact_mode_is_the_official_front_end(version, language, text, expected):
    found = TextFrontend(version, exact=True).utterance(text, language)
    segments = [
        [
            part.language,
            part.text,
            part.normalized,
            " ".join(part.phones),
            None if part.word2ph is None else "".join(map(str, part.word2ph)),
        ]
        for part in found.segments
    ]
    assert segments == expected["segments"]
    assert " ".join(map(str, found.ids)) == expected["ids"]
    assert found.retried == expected["retried"]


def test_goldens_cover_every_language_and_both_versions():
    assert len(OFFICIAL) == 44
    assert {item["language"] for item in OFFICIAL} == {
        "zh",
        "en",
        "auto",
        "all_zh",
        "ja",
        "all_ja",
        "ko",
        "yue",
        "auto_yue",
    }


@pytest.mark.parametrize("case", SPLITS, ids=lambda case: f"{case['method']}-{case['text'][:6]!r}")
def test_sentences_are_the_official_ones(case):
    assert METHODS[case["method"]](case["text"]) == case["cut"]
    assert sentences(case["text"], case["method"], "zh") == case["pre_seg_zh"]
    assert sentences(case["text"], case["method"], "en") == case["pre_seg_en"]


@needs_detector
@pytest.mark.parametrize(("language", "text", "expected"), SEGMENTS, ids=lambda value: str(value)[:12])
def test_segments_are_the_official_ones(language, text, expected):
    assert [list(span) for span in segment(text, language)] == expected


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_scripts_alone_find_most_official_segments(version, monkeypatch):
    monkeypatch.setattr("gpt_sovits_mlx.text.official_segmentation._splitter", lambda: None)
    wrong = [
        (item["language"], item["text"])
        for item in OFFICIAL
        if [list(span) for span in segment("." * item["v2"]["retried"] + item["text"], item["language"])]
        != [part[:2] for part in item["v2"]["segments"]]
    ]
    assert len(wrong) == len(DETECTED)


def test_symbols():
    assert len(symbols("v1")) == 322
    assert len(symbols("v2")) == 732
    assert symbols("v2")[:322] == symbols("v1")
    assert symbols("v4") == symbols("v2Pro") == symbols("v2")
    assert to_ids(["n", "i2", "h", "ao3", ","]) == [227, 167, 158, 119, 1]
    with pytest.raises(InputError, match=r"v1 has no phone '\['"):
        to_ids(["["], "v1")
    with pytest.raises(InputError, match="v5"):
        symbols("v5")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2月14日", "两月十四日"),
        ("第2个", "第两个"),
        ("8:30-9:15", "八点半至九点半"),
        ("跑了100", "跑了幺零零"),
        ("5mm", "五米米"),
        ("3.50和7.00", "三点五零和七点零"),
        ("-3.5", "负三零点五"),
        ("1/2", "二分之一"),
        ("10年", "一零年"),
        ("x²", "的二次方"),
        ("①②③", "一二三"),
        ("192.168.1.1", "一九二点一六八点一点一"),
        ("漢語", "汉语"),
        ("2+3=5", "二加三等于五"),
        ("400-800-1234", "四零零减八零零减幺二三四"),
        ("嗯，呣！", "恩,母!"),
        ("啊——（好）", "啊好"),
        ("5%~8%", "百分之五至百分之八"),
    ],
)
def test_official_normalisation_with_its_defects(text, expected):
    assert normalize(text, exact=True) == expected


def test_special_signs_turn_pauses_into_silences():
    found = TextFrontend("v2", exact=True).utterance("你好，^朋友们，再见", "zh")
    assert found.phones.count("SP3") == 2
    assert "," not in found.phones


def test_version_1_reads_word_by_word_and_er_by_itself():
    assert pronounce("小院儿", exact=True, version="v1")[0][-1] == "er5"
    assert pronounce("小院儿", exact=True, version="v2")[0][-1] == "er4"


@needs_detector
def test_marks_by_themselves_are_no_language():
    # What is over 510 characters is cut, and leaves the full stop that was added by itself.
    found = TextFrontend("v2", exact=True)("好" * 510, "auto")
    assert [(part.language, part.phones) for part in found[-1].segments] == [("en", (",",))]
    assert TextFrontend("v2", exact=True).utterance("\n\n").phones == (",",)


@pytest.mark.parametrize(("language", "phones"), [("ko", [","]), ("yue", [","])])
def test_version_1_says_nothing_in_other_languages(language, phones):
    found = TextFrontend("v1", exact=True).utterance("안녕하세요", language)
    assert list(found.segments[-1].phones) == phones
