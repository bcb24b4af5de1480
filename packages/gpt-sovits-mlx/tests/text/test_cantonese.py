"""Cantonese: parity with the official front end, numbers, traditional characters."""

import json
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_sovits_mlx.text import TextFrontend, cantonese
from gpt_sovits_mlx.text.phones import is_known
from mlx_core.errors import InputError

pytestmark = pytest.mark.text


def phones(text):
    return " ".join(cantonese.pronounce(cantonese.normalize(text))[0])


def test_exact_mode_equals_the_official_front_end(goldens):
    pytest.importorskip("ToJyutping")
    seen = 0
    for item in json.loads((goldens / "text" / "official.json").read_text()):
        for language, text, normalized, said, word2ph in item["v2"]["segments"]:
            if language == "yue":
                assert cantonese.normalize(text, exact=True) == normalized
                assert cantonese.pronounce(normalized, exact=True) == (said.split(), list(map(int, word2ph)))
                seen += 1
    assert seen


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("唔該", "Ym Ym4 Yg Yoi1"),  # a syllable without a vowel
        ("五牛", "Yng Yg5 Yng Yau4"),
        ("食飯未呀？", "Ys Yik6 Yf Yaan6 Ym Yei6 Yaa Ya3 ?"),  # a syllable without an initial
        ("廣東", "Ygw Yong2 Yd Yung1"),
        ("卅", "Ys Yaa1 Yaa Ya6"),  # a character of two syllables
    ],
)
def test_syllables(text, said):
    pytest.importorskip("ToJyutping")
    assert phones(text) == said


def test_the_default_keeps_what_the_official_code_loses():
    pytest.importorskip("ToJyutping")
    assert cantonese.normalize("好㗎！", exact=True) == "好!"
    assert cantonese.normalize("好㗎！") == "好㗎!"
    # 隻 is a measure word; its simplified form is 只, which is another word.
    assert cantonese.normalize("呢隻貓", exact=True) == "呢只猫"
    assert cantonese.normalize("呢隻貓") == "呢隻貓"
    assert phones("呢隻貓") == "Yn Yi1 Yz Yek3 Ym Yaau1"


def test_numbers_are_read():
    pytest.importorskip("ToJyutping")
    assert cantonese.normalize("氣溫係-3.5℃。") == "氣溫係零下三点五摄氏度."


@pytest.mark.parametrize("language", ["yue", "auto_yue", "all_yue"])
def test_characters_beside_a_number_stay_as_they_are_written(language):
    pytest.importorskip("ToJyutping")
    (found,) = TextFrontend()("呢隻貓3歲，值1,200蚊一隻。", language, split="cut0")
    assert found.normalized == "呢隻貓三歲,值一千二百蚊一隻."
    assert found.text == "呢隻貓三歲，值一千二百蚊一隻。"
    (found,) = TextFrontend()("5點30分，2隻", language, split="cut0")
    assert found.normalized == "五點三十分,两隻."
    assert TextFrontend()("呢隻貓", language)[0].normalized == "呢隻貓."


@pytest.mark.parametrize("exact", [False, True])
@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=40) | st.text("佢哋喺度食飯一二三，。！123abc㗎卅嗯", max_size=40))
def test_any_text_gives_known_phones_and_word2ph_sums_to_them(exact, text):
    pytest.importorskip("ToJyutping")
    normalized = cantonese.normalize(text, exact=exact)
    said, word2ph = cantonese.pronounce(normalized, exact=exact)
    assert all(map(is_known, said))
    assert len(word2ph) == len(normalized)
    assert sum(word2ph) == len(said)


def test_a_long_text_comes_to_an_end():
    pytest.importorskip("ToJyutping")
    assert len(cantonese.pronounce(cantonese.normalize("我哋去飲茶，" * 16_000))[1]) > 90_000


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ToJyutping", None)
    with pytest.raises(InputError, match=r'Cantonese needs.*pip install "gpt-sovits-mlx\[yue\]"') as error:
        cantonese.pronounce("你好")
    assert isinstance(error.value, ImportError)
