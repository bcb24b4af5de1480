"""The demonstration's Paraformer, trained here on a synthesiser's speech, on voices outside its training set.

`goldens/tiny` and the folder were made by `scripts/train_tiny_paraformer.py`.
"""

import json
from importlib.resources import files
from pathlib import Path

import jiwer
import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from funasr_mlx import cli
from funasr_mlx.demo import demo_clip, demo_paraformer
from funasr_mlx.folder import open_folder
from funasr_mlx.networks import Paraformer
from funasr_mlx.recognizer import load_model
from funasr_mlx.text import join_tokens
from mlx_core.audio import load_audio

# Of characters, as measured when the recordings were made, and what a processor's rounding may add.
MEASURED, MARGIN = 0.099, 0.03

CLIPS = Path(__file__).parent / "goldens" / "tiny"
FOLDER = open_folder(str(files("funasr_mlx") / "demo_paraformer"))
FRONTEND = FOLDER.frontend()
TOKENS = FOLDER.tokens()


@pytest.fixture(scope="module")
def clips():
    texts = json.loads((CLIPS / "transcripts.json").read_text(encoding="utf-8"))
    return [(FRONTEND(load_audio(CLIPS / name, FRONTEND.sample_rate)), text) for name, text in texts.items()]


@pytest.fixture(scope="module")
def model():
    return Paraformer.from_state_dict(FOLDER.config, FOLDER.weights())


def recognized(model, rows):
    """Texts of a batch of features."""
    lengths = np.array([len(row) for row in rows])
    padded = mx.stack([mx.pad(row, [(0, int(lengths.max()) - len(row)), (0, 0)]) for row in rows])
    output = model(padded, lengths)
    if not output.logits.size:
        return [""] * len(rows)
    best = np.array(mx.argmax(output.logits, axis=-1))
    return [
        join_tokens([TOKENS[i] for i in ids[:count] if i > 2]).text
        for ids, count in zip(best, np.array(output.token_num), strict=True)
    ]


def character_error_rate(model, clips):
    return jiwer.cer([text for _, text in clips], recognized(model, [row for row, _ in clips]))


def size(model):
    return sum(value.nbytes for _, value in tree_flatten(model.parameters()))


def test_voices_outside_the_training_set(model, clips):
    assert len(clips) == 20
    assert character_error_rate(model, clips) <= MEASURED + MARGIN


def test_a_batch_reads_as_its_recordings_do_alone(model, clips):
    rows = [row for row, _ in clips]
    assert recognized(model, rows) == [recognized(model, [row])[0] for row in rows]


@pytest.mark.parametrize(("bits", "share"), [(8, 0.5), (4, 0.4)])
def test_packed_weights_read_as_well(model, clips, bits, share):
    packed = Paraformer.from_state_dict(FOLDER.config, FOLDER.weights())
    packed.quantize(bits)
    assert size(packed) < share * size(model)
    assert character_error_rate(packed, clips) <= MEASURED + MARGIN


def test_silence_says_nothing(model):
    assert recognized(model, [FRONTEND(np.zeros(16000, np.float32))]) == [""]


def test_the_folder_is_small_enough_to_ship():
    total = sum(path.stat().st_size for path in FOLDER.path.iterdir())
    assert total <= 3_000_000


def test_the_command_reads_a_voice_with_nothing_named(capsys):
    assert cli.main(["transcribe"]) == 0
    found = capsys.readouterr()
    assert found.out == "yellow yes seven july\n"
    assert "demonstration" in found.err


def test_a_transcript_of_the_demonstration():
    transcript = load_model(demo_paraformer()).transcribe(demo_clip())
    assert transcript.tokens == ["yellow", "yes", "seven", "july"]
    assert len(transcript.timestamps) == 4
