"""The inputs of g2pW and the use of its answers; the model itself is a stand-in."""

import sys
import types

import numpy as np
import pytest

from gpt_sovits_mlx.text import G2PW, TextFrontend
from mlx_core.errors import InputError, MissingCheckpointError

pytestmark = pytest.mark.text


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "g2pW.onnx").write_bytes(b"")
    (tmp_path / "POLYPHONIC_CHARS.txt").write_text(
        "行\tㄒㄧㄥ2\n行\tㄏㄤ2\n長\tㄔㄤ2\n長\tㄓㄤ3\n一\tㄧ1\n", encoding="utf-8"
    )
    (tmp_path / "bopomofo_to_pinyin_wo_tune_dict.json").write_text(
        '{"ㄒㄧㄥ": "xing", "ㄏㄤ": "hang", "ㄔㄤ": "chang", "ㄓㄤ": "zhang"}', encoding="utf-8"
    )
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n行\n長\n他\n", encoding="utf-8")
    return tmp_path


@pytest.fixture
def asked(monkeypatch):
    """A stand-in for onnxruntime and opencc that keeps what it was asked."""
    kept = []

    class Session:
        def __init__(self, path, providers):
            kept.append(path)

        def run(self, names, inputs):
            kept.append(inputs)
            # The last reading that is allowed.
            scores = inputs["phoneme_mask"] * np.arange(1, inputs["phoneme_mask"].shape[1] + 1)
            return [scores / scores.sum()]

    converter = types.SimpleNamespace(convert=lambda text: text.replace("长", "長"))
    monkeypatch.setitem(sys.modules, "onnxruntime", types.SimpleNamespace(InferenceSession=Session))
    monkeypatch.setitem(sys.modules, "opencc", types.SimpleNamespace(OpenCC=lambda name: converter))
    return kept


def test_the_model_decides_characters_it_knows_several_readings_for(folder, asked):
    assert G2PW(folder).readings("他长行一.") == [("ta", "1"), ("chang", "2"), ("xing", "2"), ("yi", "1"), (".", "")]
    path, inputs = asked
    assert path.endswith("g2pW.onnx")
    # One row for each character in question: the whole clause, and the place that is meant.
    assert inputs["input_ids"].tolist() == [[2, 6, 5, 4, 1, 1, 3]] * 2
    assert inputs["position_ids"].tolist() == [2, 3]
    assert inputs["char_ids"].tolist() == [2, 1]  # of 一, 行, 長
    assert inputs["phoneme_mask"].tolist() == [[0, 0, 1, 1, 0], [1, 1, 0, 0, 0]]
    assert inputs["attention_mask"].tolist() == [[1] * 7] * 2
    assert inputs["input_ids"].dtype == np.int64
    assert inputs["phoneme_mask"].dtype == np.float32


def test_the_front_end_uses_it(folder, asked):
    for exact in (False, True):
        without = TextFrontend(exact=exact).utterance("班长他们", "zh").phones
        with_it = TextFrontend(exact=exact, polyphones=G2PW(folder)).utterance("班长他们", "zh").phones
        assert without[2:4] == ("zh", "ang3")
        assert with_it[2:4] == ("ch", "ang2")


def test_no_question_no_model(folder, asked):
    assert G2PW(folder).readings("他") == [("ta", "1")]
    assert asked == []


def test_a_missing_file_is_named(folder):
    (folder / "vocab.txt").unlink()
    with pytest.raises(MissingCheckpointError, match=r"vocab\.txt"):
        G2PW(folder)
    other = folder / "bert.txt"
    other.write_text("[UNK]\n", encoding="utf-8")
    assert G2PW(folder, other).vocabulary == other


def test_a_missing_package_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "opencc", None)
    with pytest.raises(InputError, match=r"gpt-sovits-mlx\[g2pw\]"):
        G2PW(folder).readings("长")
