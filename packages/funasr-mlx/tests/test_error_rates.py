"""Error rates, against what was counted by hand."""

import pytest

from funasr_mlx.evaluation import character_error_rate, normalize, read_references, word_error_rate
from mlx_core.errors import InputError


def test_what_is_compared():
    assert normalize("今天，Hello World!") == "今天HELLOWORLD"
    assert normalize("今天， hello 'world'!", words=True) == "今天 HELLO WORLD"
    assert normalize("🎼好😊") == "好"


def test_errors_are_counted_over_all_recordings():
    found = character_error_rate(["今天天气", "好"], ["今天汽", "好的"])
    assert (found.substitutions, found.deletions, found.insertions, found.total) == (1, 1, 1, 5)
    assert found.rate == pytest.approx(3 / 5)
    found = word_error_rate(["one two three", "four"], ["one too three", "four five"])
    assert (found.substitutions, found.deletions, found.insertions, found.total) == (1, 0, 1, 4)
    assert character_error_rate(["好"], ["好。"]).rate == 0


def test_words_recognized_in_silence_count():
    found = character_error_rate(["", "好"], ["的", "好"])
    assert (found.insertions, found.total) == (1, 1)


def test_nothing_to_count():
    with pytest.raises(InputError, match="2 references"):
        character_error_rate(["a", "b"], ["a"])
    with pytest.raises(InputError, match="no reference"):
        word_error_rate(["。"], ["a"])


def test_references(tmp_path):
    path = tmp_path / "text"
    path.write_text("a 今天 天气\nb\thello world\n\nc\n", encoding="utf-8")
    assert read_references(path) == {"a": "今天 天气", "b": "hello world", "c": ""}
    path.write_text("a x\na y\n")
    with pytest.raises(InputError, match="twice"):
        read_references(path)
    path.write_text("\n")
    with pytest.raises(InputError, match="empty"):
        read_references(path)
    with pytest.raises(InputError):
        read_references(tmp_path / "none")
