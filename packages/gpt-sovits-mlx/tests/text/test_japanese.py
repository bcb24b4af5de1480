"""Japanese: parity with the official front end, pitch marks, numbers."""

import json
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_sovits_mlx.text import japanese
from gpt_sovits_mlx.text.phones import is_known
from mlx_core.errors import InputError

pytestmark = pytest.mark.text


def phones(text):
    return " ".join(japanese.pronounce(japanese.normalize(text))[0])


def test_exact_mode_equals_the_official_front_end(goldens):
    pytest.importorskip("pyopenjtalk")
    seen = 0
    for item in json.loads((goldens / "text" / "official.json").read_text()):
        for version in ("v1", "v2"):
            run = item.get(version)
            for language, text, normalized, said, word2ph in run["segments"] if isinstance(run, dict) else ():
                if language == "ja":
                    assert japanese.normalize(text, exact=True) == normalized
                    found, none = japanese.pronounce(normalized, exact=True)
                    assert [phone if is_known(phone, version) else "UNK" for phone in found] == said.split()
                    assert none is word2ph is None
                    seen += 1
    assert seen


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("箸", "h a ] sh i"),  # falls after the first mora
        ("橋です", "h a [ sh i ] d e s u"),  # rises, then falls
        ("学校", "g a [ cl k o o"),  # rises and stays; a doubled consonant
        ("はい。", "h a ] i ."),
    ],
)
def test_pitch(text, said):
    pytest.importorskip("pyopenjtalk")
    assert phones(text) == said


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("気温は-3.5℃です。", "気温はマイナス3点ゴー度です。"),
        ("¥1,200と$5", "1200円と5ドル"),
        ("3/4の人が10:30に来た。", "4分の3の人が10時30分に来た。"),
        ("2024/5/1〜5/3、８月", "2024年5月1日から5月3日、8月"),
        ("8/15に行く", "8月15日に行く"),
        ("降水確率25%、5km", "降水確率25パーセント、5キロメートル"),
        ("電話は03-1234-5678", "電話はゼロサン、イチニーサンヨン、ゴーロクナナハチ"),
        ("「はい」（笑）", "はい、笑、"),
        ("10〜20人", "10から20人"),
    ],
)
def test_numbers_and_signs_are_read(text, normalized):
    assert japanese.normalize(text) == normalized


def test_exact_mode_leaves_numbers_alone():
    assert japanese.normalize("-3.5℃！！", exact=True) == "-3.5℃！！"
    assert japanese.normalize("え?!", exact=True) == "え?"


@pytest.mark.parametrize("exact", [False, True])
@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=40) | st.text("今日は良い天気ーっンア゛123%:/-。！ a", max_size=40))
def test_any_text_gives_known_phones(exact, text):
    pytest.importorskip("pyopenjtalk")
    assert all(map(is_known, japanese.pronounce(japanese.normalize(text, exact=exact), exact=exact)[0]))


def test_a_long_text_comes_to_an_end():
    pytest.importorskip("pyopenjtalk")
    assert len(japanese.pronounce("あ" * 50_000)[0]) > 50_000
    assert len(japanese.normalize("1:" * 50_000)) > 50_000


@pytest.mark.parametrize("text", ["何", "ー", "・", "々", "ーあ", "あ・ーい", "・ーーあ", ""])
def test_nothing_is_printed(text, capfd):
    pytest.importorskip("pyopenjtalk")
    japanese.pronounce(text)
    assert capfd.readouterr() == ("", "")


def test_long_marks_after_nothing_are_silent():
    pytest.importorskip("pyopenjtalk")
    assert phones("ー・ー") == ""
    assert phones("ーあ") == phones("あ")
    assert phones("あ・ーい") == "a _ i"


def test_a_thread_is_not_warned_of_what_is_deprecated():
    pytest.importorskip("pyopenjtalk")
    with warnings.catch_warnings(), ThreadPoolExecutor(1) as thread:
        warnings.simplefilter("error")
        assert thread.submit(japanese.pronounce, "風").result()[0] == ["k", "a", "[", "z", "e"]


def test_a_missing_extra_is_named(monkeypatch):
    japanese._open_jtalk.cache_clear()
    monkeypatch.setitem(sys.modules, "pyopenjtalk", None)
    with pytest.raises(InputError, match=r'Japanese needs.*pip install "gpt-sovits-mlx\[ja\]"') as error:
        japanese.pronounce("あ")
    assert isinstance(error.value, ImportError)
    assert japanese.pronounce("。！") == ([".", "!"], None)
