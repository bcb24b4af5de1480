"""The default mode: markup, numbers before segmentation, languages, what comes out; any text at all."""

import json
import logging
import re
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpt_sovits_mlx.cli import main
from gpt_sovits_mlx.text import LANGUAGES, METHODS, MarkupError, TextFrontend, bert_inputs, phonemes, sentences
from gpt_sovits_mlx.text.chinese import reading as chinese
from gpt_sovits_mlx.text.chinese.normalization import say_numbers
from gpt_sovits_mlx.text.chinese.words import words
from gpt_sovits_mlx.text.segmentation import segment
from mlx_core.errors import InputError

pytestmark = pytest.mark.text

frontend = TextFrontend()


def one(text, language="auto", **options):
    (found,) = TextFrontend(**options)(text, language, split="cut0")
    return found


def spans(text, language="auto"):
    return [tuple(span) for span in segment(text, language)]


def test_segments_phones_ids_and_word2ph_belong_together():
    found = one("今天天气很好, let's go to Beijing.")
    assert [part.language for part in found.segments] == ["zh", "en"]
    first = found.segments[0]
    assert first.normalized == "今天天气很好,"
    assert first.word2ph == (2, 2, 2, 2, 2, 2, 1)
    assert sum(first.word2ph) == len(first.phones)
    assert found.phones == first.phones + found.segments[1].phones
    assert len(found.ids) == len(found.phones)
    assert bert_inputs(found) == {0: (first.normalized, first.word2ph)}


def test_bert_inputs_are_found_by_their_first_phone():
    found = one("hello，你好吗")
    start = len(found.segments[0].phones)
    assert list(bert_inputs(found)) == [start]
    assert found.phones[start : start + 2] == ("n", "i2")


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("这个API很好用", "auto", [("zh", "这个"), ("en", "API"), ("zh", "很好用")]),
        ("你好こんにちは", "auto", [("ja", "你好こんにちは")]),
        ("今日は晴れ。你好，世界", "auto", [("ja", "今日は晴れ。"), ("zh", "你好，世界")]),
        ("안녕 hello", "auto", [("ko", "안녕 "), ("en", "hello")]),
        ("今日天氣好好", "auto_yue", [("yue", "今日天氣好好")]),
        ("東京 Tokyo", "ja", [("ja", "東京 "), ("en", "Tokyo")]),
        ("“你好”，hello。", "auto", [("zh", "“你好”，"), ("en", "hello。")]),
        ("123", "auto", [("zh", "123")]),
        ("你好", "en", [("en", "你好")]),
        ("", "auto", []),
    ],
)
def test_scripts_tell_languages(text, language, expected):
    assert spans(text, language) == expected


def test_a_break_ends_a_sentence_and_is_its_pause():
    found = frontend('<break time="1.5s"/>你好朋友<break time="500ms"/>再见朋友<break time=\'2s\'>')
    assert [(utterance.normalized, utterance.pause_s) for utterance in found] == [
        ("", 1.5),
        ("你好朋友.", 0.5),
        ("再见朋友.", 2.0),
    ]
    assert found[0].ids == ()


@pytest.mark.parametrize(
    ("text", "phones"),
    [
        ("银{ying4}行工作很忙", ("y", "ing4", "h", "ang2")),
        ("银行{yin1 xing2}工作很忙", ("y", "in1", "x", "ing2")),
        ("你{ni3}好{hao3}朋友们", ("n", "i3", "h", "ao3")),
        ("女{nü4}人来了吗", ("n", "v4", "r", "en2")),
        ("了{le5}解一下吧", ("l", "e5")),
    ],
)
def test_chosen_pinyin_is_spoken_as_it_is(text, phones):
    assert one(text).phones[: len(phones)] == phones


def test_chosen_arpabet_is_spoken_as_it_is():
    found = one("I say tomato{T AH0 M AA1 T OW0} and potato")
    assert " ".join(found.phones).count("EY1 T AH0 M AA1 T OW0 AH0 N D P") == 1
    assert one("live{L AY1 V}").phones == (".", "L", "AY1", "V", ".")
    assert one("live{L AY1 V}").normalized == ". live."


def test_escaped_marks_are_characters():
    assert one(r"你好\{ni3\}，朋友").normalized == "你好ni三,朋友."
    assert [part.language for part in one(r"你好朋友\<break").segments] == ["zh", "en"]


@pytest.mark.parametrize(
    ("text", "position", "message"),
    [
        ("你好{ni3", 2, "never closed"),
        ("你{ni3{ni3}}", 1, "never closed"),
        ("你好}", 2, "never opened"),
        ("{ni3}你好", 0, "right after a Chinese character"),
        ("你好 {ni3}", 3, "right after"),
        ("こ{ko1}", 1, "right after"),
        ("〇{ling2}", 1, "right after"),
        ("你{}", 1, "nothing in the braces"),
        ("你{foo1}", 1, "'foo1' isn't pinyin"),
        ("你{ni}", 1, "'ni' isn't pinyin with a tone"),
        ("你{ni6}", 1, "isn't pinyin"),
        ("你{ni3 hao3}", 1, "2 syllables for 1 Chinese character"),
        ("hi{HH AY9}", 2, "'AY9' isn't ARPAbet"),
        ("hi{hh}", 2, "isn't ARPAbet"),
        ("你好<break>", 2, "a break is written"),
        ('你好<break time="5"/>', 2, "a break is written"),
        ('你好<break time="0ms"/>', 2, "may last up to 60 s"),
        ('你好<break time="61s"/>', 2, "may last up to 60 s"),
    ],
)
def test_a_wrong_mark_is_an_error_with_its_place(text, position, message):
    with pytest.raises(MarkupError, match=message) as caught:
        frontend(text)
    assert caught.value.position == position
    assert f"at character {position}" in str(caught.value)
    assert isinstance(caught.value, InputError)


@pytest.mark.parametrize(
    ("text", "language", "message"),
    [
        ("你好行{hang2}吗", "en", "pinyin is for Chinese, and .* is read as en"),
        ("好行{hang2}です", "ja", "is read as ja"),
    ],
)
def test_a_mark_in_another_language_is_an_error(text, language, message):
    with pytest.raises(MarkupError, match=message) as caught:
        frontend(text, language)
    assert caught.value.position == text.index("{")


def test_exact_mode_has_no_markup():
    assert TextFrontend(exact=True)("行{hang2}了吧你们", "zh")[0].normalized == "行hang二了吧你们."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("气温是-3.5℃", "气温是零下三点五摄氏度"),
        ("共3/4的读者", "共四分之三的读者"),
        ("价格¥12.5元", "价格十二点五元"),
        ("价格$1,250.50", "价格一千二百五十点五零美元"),
        ("电话010-88886666", "电话零幺零，八八八八六六六六"),
        ("手机138-0013-8000", "手机幺三八，零零幺三，八零零零"),
        ("显存80GB，RTX 4090的", "显存八十GB，RTX四零九零的"),
        ("iPhone 15 Pro的", "iPhone 15 Pro的"),
        ("H2O和B2B都行", "H2O和B2B都行"),
        ("2月14日", "二月十四日"),
        ("第2个", "第二个"),
        ("2个", "两个"),
        ("2万2千", "两万两千"),
        ("买2kg，2:30到", "买两千克，两点半到"),
        ("2-3个人", "两到三个人"),
        ("10年", "十年"),
        ("98年", "九八年"),
        ("2024年", "二零二四年"),
        ("8:30-9:15", "八点半到九点十五分"),
        ("比例16:9", "比例十六比九"),
        ("共500", "共五百"),
        ("编号500", "编号五零零"),
        ("计算5-3=2", "计算五减三等于二"),
        ("温度≥30度", "温度大于等于三十度"),
        ("5mm和5km", "五毫米和五千米"),
        ("占10%~20%", "占百分之十到百分之二十"),
        ("下降-3%", "下降负百分之三"),
        ("½杯①②", "二分之一杯一二"),
        ("第Ⅱ卷", "第二卷"),
        ("IP是192.168.1.1", "IP是一九二点一六八点一点一"),
        ("30+人", "三十多人"),
        ("5元/斤", "五元每斤"),
        ("x²等于", "x的平方等于"),
        ("It costs $3.50", "It costs $3.50"),
        ("1,5歳です", "1,5歳です"),
        ("100", "一百"),
        ("٣个", "三个"),
    ],
)
def test_numbers_are_said_before_segmentation(text, expected):
    assert say_numbers(text) == expected


@pytest.mark.parametrize("language", ["en", "ja", "ko", "all_ja"])
def test_numbers_of_other_languages_are_left_alone(language):
    assert say_numbers("3个", language) == "3个"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("（真的）。", "真的."),
        ("你好——朋友", "你好,朋友"),
        ("什么？！", "什么?"),
        ("“好”《书》", "好书"),
        ("等等......好", "等等…好"),
        ("漢語：ok", "汉语,"),
        ("α粒子", "阿尔法粒子"),
        ("嗯", "恩"),
    ],
)
def test_marks_in_the_default_mode(text, expected):
    assert chinese.normalize(text) == expected


def test_particles_of_words_keep_their_tone():
    for word, last in {"土地": "i4", "获得": "e2", "目的": "i4", "酒吧": "a1", "金额": "e2"}.items():
        assert chinese.pronounce(word)[0][-1] == last, word
    assert chinese.pronounce("土地", exact=True)[0][-1] == "i5"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: TextFrontend("v9"), "v9"),
        (lambda: frontend("你好", "fr"), "no language 'fr'"),
        (lambda: frontend("你好", split="cut9"), "no cut method 'cut9'"),
        (lambda: sentences("你好", "cut9"), "no cut method 'cut9'"),
        (lambda: frontend(""), "nothing to speak"),
        (lambda: frontend("，。！"), "nothing to speak"),
        (lambda: frontend("Привет"), "nothing to speak"),
        (lambda: TextFrontend("v1")("안녕하세요", "ko"), "v1 speaks en, ja, zh, not ko"),
        (lambda: TextFrontend(exact=True)(""), "nothing to speak"),
    ],
)
def test_errors_say_what_is_wrong(call, message):
    with pytest.raises(InputError, match=message):
        call()


# What has to be installed for Japanese, Korean and Cantonese isn't these tests' business.
FOREIGN = re.compile("[\u3040-\u30ff\u1100-\u11ff\u3130-\u318f\uac00-\ud7af]|[\uff66-\uff9f]|[\u31f0-\u31ff]")
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=40).map(lambda text: FOREIGN.sub("", text))
LIKELY = st.text(
    st.sampled_from("一不了得地行长重0123456789.,:/-+%=~年月日个℃¥$ abXY。，！？…{}<>\\\"'（）²½①\n儿子上里"),
    max_size=40,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.one_of(ANY_TEXT, LIKELY),
    st.sampled_from(["auto", "zh", "all_zh", "en"]),
    st.sampled_from(["v1", "v2"]),
    st.booleans(),
    st.sampled_from(sorted(METHODS)),
)
def test_any_text_gives_phones_or_a_clear_error(text, language, version, exact, split):
    if exact and language == "auto":
        language = "zh"  # the official detector may say Japanese
    try:
        found = phonemes(text, language, version, exact=exact, split=split)
    except InputError:
        return
    assert found
    for utterance in found:
        assert len(utterance.ids) == len(utterance.phones)
        for part in utterance.segments:
            assert (part.word2ph is not None) == (part.language == "zh")
            if part.word2ph is not None:
                assert sum(part.word2ph) == len(part.phones)
                assert len(part.word2ph) == len(part.normalized)


@settings(max_examples=100, deadline=None)
@given(st.one_of(st.text(max_size=60), LIKELY))
def test_segments_are_the_whole_text(text):
    assert "".join(span.text for span in segment(text)) == "".join(text if "  " not in text else _single_spaces(text))


def _single_spaces(text):
    while "  " in text:
        text = text.replace("  ", " ")
    return text


@settings(max_examples=100, deadline=None)
@given(LIKELY)
def test_no_digits_are_left_in_chinese(text):
    assert not any(c.isdigit() for c in chinese.normalize("在" + text + "里"))


def test_a_long_text_is_read_to_its_end():
    # 100,000 characters: no sentence is longer than BERT reads, so that the work is linear.
    text = ("今天是2024年5月1日，气温-3.5℃，我们用Python写code。" * 3000)[:99_990] + "。结束了。"
    found = frontend(text, split="cut1")
    assert found[-1].normalized.endswith("结束了.")
    assert max(len(utterance.text) for utterance in found) <= 510


@pytest.mark.parametrize("unit", ["好", "1", "1+", "1.", "-", "a ", "1/", "第", "1,000,", "1=", "{", "<break"])
def test_what_repeats_itself_ends(unit):
    text = unit * (20_000 // len(unit))
    try:
        found = frontend(text, split="cut0")
    except InputError:
        return
    assert all(len(utterance.text) <= 600 for utterance in found)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_sentences_are_what_bert_reads_at_most(method):
    found = sentences("好" * 1200, method, "zh")
    assert "".join(found).count("好") == 1200
    assert max(map(len, found)) == 510
    assert max(map(len, sentences("好，" * 600, method, "zh"))) <= 510


def test_jieba_is_left_as_it_was(tmp_path, monkeypatch):
    import jieba

    words("你好")
    assert not jieba.dt.initialized
    assert logging.getLogger("jieba").level == logging.DEBUG


def test_nothing_heavy_is_imported_with_the_package():
    code = (
        "import sys, gpt_sovits_mlx, gpt_sovits_mlx.text;"
        "print([m for m in ('jieba', 'pypinyin', 'split_lang', 'onnxruntime', 'nltk') if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_command(capsys):
    assert main(["phonemes", "今天天气很好, let's go to Beijing."]) == 0
    shown = capsys.readouterr().out
    assert "word2ph 2 2 2 2 2 2 1" in shown
    assert "let's go to Beijing." in shown
    assert main(["phonemes", '行{hang2}了<break time="1s"/>', "--json", "--version", "v4"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["pause_s"] == 1.0
    assert found["segments"][0]["phones"][:3] == [".", "h", "ang2"]
    assert found["segments"][0]["word2ph"][:2] == [1, 2]
    assert len(found["ids"]) == sum(found["segments"][0]["word2ph"])
    assert main(["phonemes", "你好{"]) == 1
    assert "at character 2" in capsys.readouterr().err
    assert main(["phonemes", "3/4的人", "--exact", "--language", "all_zh", "--split", "cut0"]) == 0
    assert "四分之三的人" in capsys.readouterr().out


def test_languages_and_methods():
    assert set(METHODS) == {f"cut{n}" for n in range(6)}
    assert {"auto", "auto_yue", "zh", "en", "ja", "ko", "yue", "all_zh", "all_ja", "all_ko", "all_yue"} == set(
        LANGUAGES
    )
