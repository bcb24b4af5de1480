"""Low frame rate and normalisation; the filter bank itself is tested in mlx-core."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from funasr_mlx import folder as module
from funasr_mlx.folder import open_folder
from funasr_mlx.frontend import Frontend, FrontendConfig, make_frontend, read_mvn
from mlx_core.errors import AudioError, ConfigError, MissingCheckpointError, TokenizerError, WeightsError

MVN = """<Nnet>
<Splice> 4 4
[ 0 ]
<AddShift> 4 4
<LearnRateCoef> 0 [ -1 2 3e0 0.5 ]
<Rescale> 4 4
<LearnRateCoef> 0 [ 1 2 3 4 ]
</Nnet>
"""


@given(frames=st.integers(0, 60), m=st.integers(1, 9), n=st.integers(1, 8))
def test_low_frame_rate_by_its_definition(frames, m, n):
    frontend = Frontend(FrontendConfig(n_mels=2, lfr_m=m, lfr_n=n))
    x = np.arange(2 * frames, dtype=np.float32).reshape(frames, 2)
    rows = np.array(frontend.stack(mx.array(x)))
    assert rows.shape == (-(-frames // n), 2 * m)
    for i, row in enumerate(rows):
        at = [min(max(i * n + k - (m - 1) // 2, 0), frames - 1) for k in range(m)]
        np.testing.assert_array_equal(row, x[at].reshape(-1))


def test_normalisation(tmp_path):
    (tmp_path / "am.mvn").write_text(MVN)
    shift, _ = read_mvn(tmp_path / "am.mvn")
    np.testing.assert_array_equal(shift, [-1, 2, 3, 0.5])
    frontend = make_frontend({"n_mels": 2, "lfr_m": 2}, tmp_path / "am.mvn")
    np.testing.assert_array_equal(np.array(frontend.normalize(mx.ones((1, 4)))), [[0, 6, 12, 6]])
    with pytest.raises(WeightsError, match="different models"):
        make_frontend({"n_mels": 80}, tmp_path / "am.mvn")


@pytest.mark.parametrize(
    "text", ["", "[ 1 2 ]", MVN.replace("3e0", "x"), MVN.replace("3e0", "nan"), MVN.replace("3e0 ", "")]
)
def test_a_damaged_normalisation_is_refused(tmp_path, text):
    (tmp_path / "am.mvn").write_text(text)
    with pytest.raises(WeightsError):
        read_mvn(tmp_path / "am.mvn")


def test_samples():
    frontend = Frontend(FrontendConfig(lfr_m=7, lfr_n=6))
    for samples, rows in ((0, 0), (1, 0), (399, 0), (400, 1), (16000, 17)):
        assert frontend(np.zeros(samples, np.float32)).shape == (rows, 560)
    with pytest.raises(AudioError):
        frontend(np.full(800, np.nan, np.float32))
    assert np.isfinite(np.array(frontend(np.full(800, 9e8, np.float32)))).all()
    with pytest.raises(AudioError, match="1e\\+30"):
        frontend(np.full(800, 1e30, np.float32))


@pytest.mark.parametrize(
    "config", [{"lfr_m": 0}, {"snip_edges": False}, {"window": "hann"}, {"fs": 0}, {"n_mels": "80"}, {"frame_shift": 0}]
)
def test_a_front_end_that_can_t_be_is_refused(config):
    with pytest.raises(ConfigError):
        FrontendConfig.from_dict(config)


def test_a_folder(tmp_path):
    with pytest.raises(MissingCheckpointError):
        open_folder(tmp_path / "none")
    with pytest.raises(MissingCheckpointError):
        open_folder(tmp_path)
    (tmp_path / "config.yaml").write_text("a: [1, 2")
    with pytest.raises(ConfigError, match="YAML"):
        open_folder(tmp_path)
    (tmp_path / "config.yaml").write_text("frontend_conf: {fs: 16000}\n")
    with pytest.raises(ConfigError, match="model"):
        open_folder(tmp_path)
    (tmp_path / "config.yaml").write_text("model: Paraformer\nencoder_conf: null\ndecoder_conf: 3\n")
    folder = open_folder(tmp_path)
    assert folder.kind == "Paraformer"
    assert folder.table("encoder_conf") == {}
    with pytest.raises(ConfigError, match="decoder_conf"):
        folder.table("decoder_conf")
    with pytest.raises(MissingCheckpointError, match="tokens"):
        folder.tokens()
    (tmp_path / "tokens.txt").write_text("<blank>\n<s> \n一\r\n")
    assert folder.tokens() == ["<blank>", "<s>", "一"]
    (tmp_path / "tokens.json").write_text('{"a": 1}')
    with pytest.raises(TokenizerError):
        folder.tokens()
    with pytest.raises(MissingCheckpointError):
        folder.weights()


@pytest.mark.parametrize("outer", [None, "state_dict", "model_state_dict", "model"])
def test_weights_of_a_model_that_was_wrapped(tmp_path, monkeypatch, outer):
    (tmp_path / "config.yaml").write_text("model: Paraformer")
    (tmp_path / "model.pt").write_bytes(b"")
    tensors = {"module.decoder.module.weight": mx.ones(3)}
    monkeypatch.setattr(module, "load_pytorch_checkpoint", lambda file: {outer: tensors} if outer else tensors)
    assert list(open_folder(tmp_path).weights()) == ["decoder.module.weight"]
