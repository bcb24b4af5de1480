"""Long recordings, many recordings, batches and sentences, with a recognizer with a script."""

import mlx.core as mx
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from funasr_mlx import pipeline as module
from funasr_mlx.frontend import Frontend, FrontendConfig
from funasr_mlx.pipeline import Pipeline, quiet_cuts
from funasr_mlx.recognition import Recognition
from funasr_mlx.recognizer import Recognizer
from funasr_mlx.text import sentences
from mlx_core.audio import save_wav
from mlx_core.errors import AudioError, InputError

RATE = 16000


class Scripted(Recognizer):
    """Says a stretch's loudness in thousandths, at the times where it starts and ends."""

    def __init__(self):
        super().__init__(None, Frontend(FrontendConfig()))
        self.batches = []

    def __call__(self, features, lengths, hotwords=None):
        raise AssertionError("not called")

    def recognize(self, features, options=None):
        self.batches.append([len(rows) for rows in features])
        result = []
        for rows in features:
            if not len(rows):
                result.append(Recognition())
                continue
            word = str(round(float(mx.mean(rows))))
            result.append(Recognition(word, [word], [(0, 10 * len(rows))], word))
        return result


class Spans:
    """A VAD that finds what it is told."""

    def __init__(self, spans):
        self.spans = spans

    def segment(self, samples, *, sample_rate, **options):
        return [span for span in self.spans if span[1] * sample_rate // 1000 <= len(samples)]


def noise(seconds, level, seed=0):
    return (level * np.random.default_rng(seed).standard_normal(int(seconds * RATE))).astype(np.float32)


def test_stretches_share_batches_and_come_back_in_order():
    asr = Scripted()
    spans = [(0, 1000), (1500, 2000), (2000, 5000), (6000, 6900)]
    audio = np.concatenate([noise(1, 0.01 * (at + 1), at) for at in range(8)])
    transcript = Pipeline(asr, Spans(spans), batch_seconds=4).transcribe(audio)
    assert asr.batches == [[298], [98, 88, 48]]  # the longest first, those of a like length together
    assert [segment.start_ms for segment in transcript.segments] == [0, 1500, 2000, 6000]
    one_by_one = [asr.recognize([asr.frontend(audio[a * 16 : b * 16])])[0].text for a, b in spans]
    assert transcript.tokens == one_by_one
    assert transcript.timestamps == [(0, 980), (1500, 1980), (2000, 4980), (6000, 6880)]
    assert transcript.duration_ms == 8000


def test_recordings_share_batches_and_don_t_take_each_other_down(tmp_path):
    asr = Scripted()
    save_wav(tmp_path / "a.wav", noise(1, 0.1), RATE)
    (tmp_path / "b.wav").write_bytes(b"RIFF....no sound")
    save_wav(tmp_path / "c.wav", noise(1, 0.01), 8000)
    audios = [tmp_path / "a.wav", tmp_path / "b.wav", np.full(800, np.nan, np.float32), tmp_path / "none.wav"]
    audios += [np.zeros(0, np.float32), np.zeros(1, np.float32), tmp_path / "c.wav", tmp_path]
    results = list(Pipeline(asr).transcribe_many(audios))
    assert [isinstance(result, AudioError) for result in results] == [
        False,
        True,
        True,
        True,
        False,
        False,
        False,
        True,
    ]
    assert asr.batches == [[198, 98, 0]]
    assert results[0].text
    assert results[4].text == results[5].text == ""
    assert results[6].text
    assert results[6].duration_ms == 2000


def test_progress_and_order_over_many_recordings(monkeypatch):
    monkeypatch.setattr(module, "_POOL_BATCHES", 1)
    asr, seen = Scripted(), []
    audios = [noise(seconds, 0.1, seconds) for seconds in (1, 3, 2, 1, 1, 5)]
    pipeline = Pipeline(asr, batch_seconds=4)
    results = list(pipeline.transcribe_many(audios, on_progress=lambda done, known: seen.append((done, known))))
    assert [result.duration_ms for result in results] == [1000, 3000, 2000, 1000, 1000, 5000]
    assert seen[-1] == (13, 13)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    whole = list(Pipeline(asr).transcribe_many(audios))
    assert [result.text for result in results] == [result.text for result in whole]


def test_results_come_as_soon_as_they_are_known(monkeypatch):
    monkeypatch.setattr(module, "_POOL_BATCHES", 1)
    opened = []

    def audios():
        for number in range(4):
            opened.append(number)
            yield noise(2, 0.1, number)

    results = Pipeline(Scripted(), batch_seconds=1).transcribe_many(audios())
    next(results)
    assert opened == [0]


def test_long_recordings_without_vad_are_cut_where_it_is_quiet():
    audio = noise(150, 0.3)
    audio[55 * RATE : 56 * RATE] = 0
    transcript = Pipeline(Scripted()).transcribe(audio)
    assert len(transcript.segments) == 3
    assert 55_000 < transcript.segments[1].start_ms < 56_000
    assert transcript.segments[-1].end_ms <= 150_000


def test_what_is_beyond_any_loudness_is_no_harm_to_its_batch(tmp_path):
    good, pipeline = noise(1, 0.1), Pipeline(Scripted())
    soundfile.write(tmp_path / "loud.wav", noise(1, 1e30), RATE, subtype="FLOAT")
    found = list(pipeline.transcribe_many([good, noise(1, 1e30), tmp_path / "loud.wav", good]))
    assert found[0] == found[3] == pipeline.transcribe(good)
    assert isinstance(found[1], AudioError)
    assert isinstance(found[2], AudioError)
    assert "loud.wav" in str(found[2])


@settings(max_examples=40)
@given(length=st.integers(0, 3000), longest=st.integers(20, 500))
def test_cuts_leave_nothing_out(length, longest):
    samples = np.random.default_rng(length).standard_normal(length).astype(np.float32)
    cuts = quiet_cuts(samples, 100, longest / 100)
    assert cuts[0] == 0
    assert cuts[-1] == length
    steps = np.diff(cuts)
    assert (steps > 0).all()
    assert (steps <= longest).all()


def test_sentences_end_at_marks():
    times = [(0, 100), (100, 200), (200, 300), (400, 500)]
    found = sentences([1, 2, 1, 3], times, ["今", "天", "hello", "world"])
    assert [(s.start_ms, s.end_ms, s.text) for s in found] == [(0, 200, "今天，"), (200, 500, "hello world。")]
    found = sentences([2, 1, 1, 4], times, ["well", "how", "are", "you"])
    assert [s.text for s in found] == ["well,", "how are you?"]
    assert sentences([1, 1], times[:2], ["今", "天"])[0].text == "今天"
    assert sentences([], [], []) == []


@pytest.mark.parametrize(
    "options",
    [
        {"batch_seconds": 0},
        {"batch_seconds": float("nan")},
        {"merge_seconds": -1},
        {"batch_seconds": float("inf")},
        {"merge_seconds": float("inf")},
    ],
)
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(InputError):
        Pipeline(Scripted(), **options)


def test_samples_of_other_rates_and_channels():
    pipeline = Pipeline(Scripted())
    stereo = np.stack([noise(1, 0.1), noise(1, 0.1)], axis=1)
    assert pipeline.transcribe(stereo).duration_ms == 1000
    assert pipeline.transcribe(noise(1, 0.1), sample_rate=48000).duration_ms == 333
    with pytest.raises(AudioError):
        pipeline.transcribe(np.zeros(800, np.int16))
    with pytest.raises(AudioError):
        pipeline.transcribe(np.zeros((2, 2, 2), np.float32))
