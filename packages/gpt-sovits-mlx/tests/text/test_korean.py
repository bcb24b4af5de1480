"""Korean: parity with the official front end, the rules of pronunciation, numbers."""

import json
import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_sovits_mlx.text.korean import reading as korean
from gpt_sovits_mlx.text.korean import sounds as korean_sounds
from gpt_sovits_mlx.text.phones import is_known
from mlx_core.errors import InputError

pytestmark = pytest.mark.text


def phones(text):
    return "".join(korean.pronounce(korean.normalize(text))[0])


def test_exact_mode_equals_the_official_front_end(goldens):
    pytest.importorskip("MeCab")
    seen = 0
    for item in json.loads((goldens / "text" / "official.json").read_text()):
        for language, text, normalized, said, word2ph in item["v2"]["segments"]:
            if language == "ko":
                assert korean.normalize(text, exact=True) == normalized
                assert korean.pronounce(normalized, exact=True) == (said.split(), word2ph)
                seen += 1
    assert seen


def test_morphemes_are_mecab_ko_s(goldens):
    pytest.importorskip("MeCab")
    analyser = korean._analyser()
    recorded = json.loads((goldens / "text" / "korean_morphemes.json").read_text(encoding="utf-8"))
    assert {finder for _, _, finder in recorded} == {"mecab", "mecab-ko alone"}
    for text, morphemes, _ in recorded:
        assert analyser.pos(text) == [tuple(morpheme) for morpheme in morphemes], text


def test_the_search_with_penalties_agrees_where_none_applies(goldens):
    pytest.importorskip("MeCab")
    analyser = korean._analyser()
    for text, morphemes, _ in json.loads((goldens / "text" / "korean_morphemes.json").read_text(encoding="utf-8")):
        assert analyser._searched(text) == [tuple(morpheme) for morpheme in morphemes], text


@pytest.mark.parametrize(
    ("text", "surfaces"),
    [("", []), (" \n", []), ("  가  ", ["가"]), ("가\0나", ["가"]), ("😀 가\u200b", ["😀", "가", "\u200b"])],
)
def test_morphemes_of_awkward_texts(text, surfaces):
    pytest.importorskip("MeCab")
    assert [surface for surface, _ in korean._analyser().pos(text)] == surfaces


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("국물.", "ㄱㅜㅇㅁㅜㄹ."),  # nasal before a nasal
        ("신라.", "ㅅㅣㄹㄹㅏ."),  # ㄴ beside ㄹ
        ("좋다.", "ㅈㅗㅌㅏ."),  # ㅎ with a plain stop
        ("굳이.", "ㄱㅜㅈㅣ."),  # palatalised before 이
        ("같이.", "ㄱㅏㅊㅣ."),
        ("값을.", "ㄱㅏㅂㅆㅡㄹ."),  # a double coda, linked
        ("닭.", "ㄷㅏㄱ."),
        ("학교.", "ㅎㅏㄱㄲㅣㅗ."),  # tense after a stop
        ("아기를 안고 있다.", "ㅇㅏㄱㅣㄹㅡㄹ空ㅇㅏㄴㄲㅗ空ㅇㅣㄷㄸㅏ."),  # tense after a verb stem in ㄴ
        ("할 것을", "ㅎㅏㄹ空ㄲㅓㅅㅡㄹ."),  # tense after the ending ㄹ; a full stop after a last letter
        ("솜이불.", "ㅅㅗㅁㄴㅣㅂㅜㄹ."),  # an idiom
        ("의사.", "ㅇㅡㅣㅅㅏ."),
        ("AI!", "ㅇㅔㅇㅣㅇㅏㅇㅣ!"),
    ],
)
def test_pronunciation(text, said):
    pytest.importorskip("MeCab")
    assert phones(text) == said


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("사과 3개와 배 21개", "사과 세개와 배 스물한개"),
        ("20살, 스무 명, 120마리", "스무살, 스무 명, 백스물마리"),
        ("2024년 6월 10일", "이천이십사년 유월 십일"),
        ("2024-10-01", "이천이십사년 시월 일일"),
        ("오전 10:30", "오전 열시 삼십분"),
        ("15시", "십오시"),
        ("기온은 -3.5℃", "기온은 영하 삼점오도"),
        ("₩12,500, 25%", "만이천오백원, 이십오퍼센트"),
        ("110000원", "십일만원"),
        ("$5, 2달", "오달러, 두달"),
        ("010-1234-5678", "공일공 일이삼사 오육칠팔"),
        ("3/4", "사분의 삼"),
        ("10~20명", "십에서 스무명"),
        ("1번째", "첫번째"),
        ("5km (서울)", "오킬로미터, 서울,"),
    ],
)
def test_numbers_and_signs_are_read(text, normalized):
    assert korean.normalize(text) == normalized


@given(st.integers(1, 10**16 - 1))
def test_sino_korean_numbers_have_their_digits(n):
    names = dict(zip("일이삼사오육칠팔구", range(1, 10), strict=True))
    scales = {"만": 10**4, "억": 10**8, "조": 10**12}
    total = group = digit = 0
    for c in korean._sino(str(n)):
        if c in names:
            digit = names[c]
        elif c in scales:
            total, group, digit = total + (group + digit or 1) * scales[c], 0, 0
        else:
            group, digit = group + (digit or 1) * 10 ** ("십백천".index(c) + 1), 0
    assert total + group + digit == n


@given(st.text(st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3), max_size=20))
def test_syllables_come_apart_into_jamo(text):
    assert korean_sounds.conjoining(text) == unicodedata.normalize("NFD", text)


@pytest.mark.parametrize("exact", [False, True])
@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=40) | st.text("값이 많다를 좋은 의 학교닭ㅋㅠ1230개년,. a\n", max_size=40))
def test_any_text_gives_known_phones(exact, text):
    pytest.importorskip("MeCab")
    assert all(map(is_known, korean.pronounce(korean.normalize(text, exact=exact), exact=exact)[0]))


def test_a_long_text_comes_to_an_end():
    pytest.importorskip("MeCab")
    assert len(korean.pronounce(korean.normalize("안녕하세요 3개 " * 10_000))[0]) > 100_000


def test_a_missing_extra_is_named(monkeypatch):
    korean._analyser.cache_clear()
    monkeypatch.delitem(sys.modules, f"{korean.__package__}.morphemes", raising=False)
    monkeypatch.setitem(sys.modules, "MeCab", None)
    with pytest.raises(InputError, match=r'Korean needs.*pip install "gpt-sovits-mlx\[ko\]"') as error:
        korean.pronounce("가")
    assert isinstance(error.value, ImportError)
