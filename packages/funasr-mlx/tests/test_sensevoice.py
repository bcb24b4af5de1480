"""SenseVoiceSmall, CTC and forced alignment."""

import itertools

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from funasr_mlx.networks import SenseVoiceOutput, align, collapse
from mlx_core.errors import InputError

ASKED = {"auto": ("auto", False), "zh_itn": ("zh", True)}


@pytest.mark.parametrize("row", [0, 1])
@pytest.mark.parametrize("asked", ASKED)
def test_what_funasr_computes(asr_case, asked, row):
    case = asr_case("sensevoice")
    io = {key.removeprefix(f"{row}.{asked}."): value for key, value in case.io.items()}
    language, itn = ASKED[asked]
    found = case.network(mx.array(case.features[row])[None], [len(case.features[row])], language, itn)
    scale = np.abs(io["encoder_out"]).max()
    np.testing.assert_allclose(found.encoder_out, io["encoder_out"], atol=2e-5 * scale)
    logp = found.logits - mx.logsumexp(found.logits, axis=-1, keepdims=True)
    np.testing.assert_allclose(logp, io["logp"], atol=2e-5 * np.abs(io["logp"]).max())
    assert found.ids() == [io["ids"].tolist()]
    assert found.align(0, io["text"]).tolist() == io["align"].tolist()


def test_a_batch_is_its_rows(asr_case):
    case = asr_case("sensevoice")
    rows = [case.features[1], case.features[1][:0], case.features[0]]
    lengths = [len(row) for row in rows]
    padded = np.full((3, max(lengths), rows[0].shape[1]), 7, np.float32)
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = row
    batch = case.network(mx.array(padded), lengths, "en")
    for i, row in enumerate(rows):
        alone = case.network(mx.array(row)[None], [len(row)], "en")
        np.testing.assert_allclose(batch.logits[i, : len(row) + 4], alone.logits[0], atol=1e-4)
        assert batch.ids()[i] == alone.ids()[0]
    assert batch.align(1, []).size == 0


def test_nothing_gives_nothing(asr_case):
    case = asr_case("sensevoice")
    for rows in (0, 2):
        found = case.network(mx.zeros((rows, 0, case.features[0].shape[1])), [0] * rows)
        assert found.logits.shape == (rows, 4, 30)
        assert len(found.ids()) == rows


def test_names_and_layouts_are_the_checkpoints(asr_case):
    case = asr_case("sensevoice")
    saved = case.network.state_dict()
    assert saved.keys() == case.weights.keys()
    for key, value in saved.items():
        np.testing.assert_array_equal(value, case.weights[key])


@pytest.mark.parametrize("language", ["klingon", -1, 16])
def test_languages_that_arent_known_are_refused(asr_case, language):
    case = asr_case("sensevoice")
    with pytest.raises(InputError, match="language"):
        case.network(mx.array(case.features[0])[None], [len(case.features[0])], language)


def test_frames_that_are_likeliest_blank_are_free_to_be():
    frames = [[0.05, 0.9, 0.05], [0.5, 0.46, 0.04], [0.45, 0.5, 0.05]]
    probabilities = np.array([[[0.1, 0.8, 0.1]] * 4 + frames], np.float32)
    output = SenseVoiceOutput(mx.zeros((1, 7, 1)), mx.array(np.log(probabilities)), np.array([7]))
    assert output.align(0, [1]).tolist() == [1, 0, 0]
    assert align(np.log(frames), [1]).tolist() == [1, 1, 1]


@given(st.data())
def test_alignment_is_the_best_path_of_all(data):
    frames = data.draw(st.integers(1, 5))
    scores = np.array(
        data.draw(st.lists(st.lists(st.floats(-4, 0), min_size=3, max_size=3), min_size=frames, max_size=frames))
    )
    labels = data.draw(st.lists(st.integers(1, 2), max_size=3))
    paths = [
        path for path in itertools.product(range(3), repeat=frames) if collapse(np.array(path, dtype=int)) == labels
    ]
    if not paths:
        with pytest.raises(InputError, match="need"):
            align(scores, labels)
        return
    found = align(scores, labels)
    assert tuple(found) in paths
    best = max(scores[np.arange(frames), path].sum() for path in paths)
    np.testing.assert_allclose(scores[np.arange(frames), found].sum(), best)


@pytest.mark.parametrize("labels", [[0], [3], [-1]])
def test_labels_that_cant_be_are_refused(labels):
    with pytest.raises(InputError, match="labels must be"):
        align(np.zeros((4, 3)), labels)
