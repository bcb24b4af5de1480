"""Words out of tokens, and tokens out of hotwords."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from funasr_mlx.text import Vocabulary, join_tokens, join_words, read_spellings
from mlx_core.errors import InputError, TokenizerError


@pytest.mark.parametrize(
    ("tokens", "text", "words"),
    [
        ([], "", []),
        (["今", "天"], "今天", ["今", "天"]),
        (["hello", "wor@@", "ld"], "hello world", ["hello", "world"]),
        (["今", "天", "hello", "天", "气"], "今天hello天气", ["今", "天", "hello", "天", "气"]),
        (["ab@@", "cd@@", "ing", "the"], "abcding the", ["abcding", "the"]),
        (["<s>", "今", "<unk>", "</s>"], "今", ["今"]),
        (["a", "b", "c", "day"], "ABC day", ["ABC", "day"]),
        (["the", "a", "b"], "the AB", ["the", "AB"]),
        (["a", "今", "b"], "a今b", ["a", "今", "b"]),
        (["it", "'s"], "it 's", ["it", "'s"]),
        (["3", "0", "天"], "30天", ["3", "0", "天"]),
        # as FunASR has it: a piece that nothing goes on with waits for the next word
        (["w18@@", "为", "ing"], "为w18ing", ["为", "w18ing"]),
    ],
)
def test_text_and_words(tokens, text, words):
    wording = join_tokens(tokens)
    assert (wording.text, wording.words, wording.times) == (text, words, [])


def test_times_of_pieces_abbreviations_and_characters():
    tokens = ["今", "wor@@", "ld", "a", "b"]
    times = [(0, 100), (100, 200), (200, 300), (300, 400), (400, 500)]
    wording = join_tokens(tokens, times)
    assert wording.words == ["今", "world", "AB"]
    assert wording.times == [(0, 100), (100, 300), (300, 500)]


WORDS = st.lists(st.sampled_from(["今", "天", "hello", "wor@@", "ld", "a", "b", "'s", "7", "<unk>"]), max_size=12)


@given(tokens=WORDS)
def test_words_are_the_text_s_and_have_times(tokens):
    times = [(100 * at, 100 * at + 90) for at in range(len(tokens))]
    wording = join_tokens(tokens, times)
    assert "".join(wording.words).replace(" ", "") == wording.text.replace(" ", "")
    assert len(wording.times) == len(wording.words) or "<unk>" in tokens
    assert all(start <= end for start, end in wording.times)
    assert wording.text == join_tokens(tokens).text


def test_join_words():
    assert join_words(["今", "天", "hello", "world", "吗"]) == "今天 hello world 吗"
    assert join_words([]) == ""


TOKENS = ["<blank>", "<s>", "</s>", "今", "天", "hello", "wor@@", "ld", "h", "<unk>"]


def test_hotwords_without_spellings():
    vocabulary = Vocabulary(TOKENS)
    assert vocabulary.encode("今天") == [3, 4]  # FunASR makes one <unk> of it (#2443)
    assert vocabulary.encode("hello") == [5]
    assert vocabulary.encode("HELLO 今") == [5, 3]
    assert vocabulary.encode("今x") == [3, 9]
    with pytest.raises(InputError, match="xyz"):
        vocabulary.encode("xyz")
    with pytest.raises(InputError):
        vocabulary.encode(" ")


def test_hotwords_with_spellings(tmp_path):
    (tmp_path / "seg_dict").write_text("今 今\n天 天\nworld wor@@ ld\n\n", encoding="utf-8")
    vocabulary = Vocabulary(TOKENS, read_spellings(tmp_path / "seg_dict"))
    assert vocabulary.encode("World") == [6, 7]
    assert vocabulary.encode("今天气") == [3, 4, 9]
    (tmp_path / "seg_dict").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(TokenizerError):
        read_spellings(tmp_path / "seg_dict")


def test_ids_beyond_the_vocabulary_are_refused():
    with pytest.raises(TokenizerError, match="different models"):
        Vocabulary(TOKENS).decode([10])
