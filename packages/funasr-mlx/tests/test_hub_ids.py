"""Models by hub ids: from a cache in Hugging Face's layout, and the files that are asked for."""

import fnmatch
import os
import shutil
import subprocess
import sys

import huggingface_hub
import pytest

from funasr_mlx import Pipeline, StreamingSession, convert, demo_clip, demo_paraformer, demo_vad, load_model, load_vad
from funasr_mlx.folder import open_folder
from mlx_core.errors import ConfigError, HubError, MissingCheckpointError

TEXT = "yellow yes seven july"


def test_recognizer_and_vad(hub):
    model = load_model(hub.add(demo_paraformer(), "someone/tiny-paraformer"))
    vad = load_vad(hub.add(demo_vad(), "someone/fsmn-vad"))  # FunASR's own folder: config.yaml, model.pt
    assert model.transcribe(demo_clip()).text == TEXT
    assert Pipeline(model, vad).transcribe(demo_clip()).text == TEXT


def test_conversion(hub, tmp_path):
    convert(hub.add(demo_vad(), "someone/fsmn-vad"), tmp_path / "vad", dtype="float32")
    samples = load_model(demo_paraformer()).samples(demo_clip())
    assert load_vad(tmp_path / "vad").segment(samples) == load_vad("someone/fsmn-vad").segment(samples) != []


def test_a_stream_names_the_wrong_kind(hub):
    with pytest.raises(ConfigError, match="needs a ParaformerStreaming; found a paraformer"):
        StreamingSession(hub.add(demo_paraformer(), "someone/tiny-paraformer"))


def test_an_id_that_is_not_cached(hub):
    with pytest.raises(HubError, match="HF_HUB_OFFLINE"):
        load_model("someone/nothing")
    with pytest.raises(MissingCheckpointError, match="no-folder"):
        load_model("no-folder")


@pytest.mark.parametrize(
    ("files", "kept"),
    [
        (["model.pt", "model.onnx", "model_quant.onnx", "fig/res.png"], ["model.pt"]),
        (["model.safetensors", "seg_dict", "jieba_usr_dict", "tokens.txt", "example/asr.wav"], None),
        (["model.pt", "chn_jpn_yue_eng_ko_spectok.bpe.model", "example/zh.mp3"], None),
    ],
)
def test_a_download_asks_for_what_a_model_needs(hub, tmp_path, monkeypatch, files, kept):
    """A hub's repository with FunASR's files, of which those that match are copied."""
    names = ["config.yaml", "am.mvn", "tokens.json", *files]
    remote, local = tmp_path / "remote", tmp_path / "local"
    for name in names:
        (remote / name).parent.mkdir(parents=True, exist_ok=True)
        (remote / name).write_text("model: Paraformer")

    def download(repo, *, allow_patterns, local_files_only=False, **options):
        if local_files_only:
            raise FileNotFoundError(repo)
        for name in names:
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in allow_patterns):
                (local / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(remote / name, local / name)
        return str(local)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda *arguments, **options: names)
    assert open_folder("funasr/some-model").kind == "Paraformer"
    wanted = {"config.yaml", "am.mvn", "tokens.json", *(kept or [name for name in files if "/" not in name])}
    assert {file.name for file in local.iterdir()} == wanted


def test_the_command_takes_ids(hub):
    hub.add(demo_paraformer(), "someone/tiny-paraformer")
    hub.add(demo_vad(), "someone/fsmn-vad")
    program = "import sys; from funasr_mlx.cli import main; sys.exit(main())"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(hub.root)}

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-c", program, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    found = run("transcribe", "--model", "someone/tiny-paraformer", "--vad", "someone/fsmn-vad", str(demo_clip()))
    assert (found.returncode, found.stdout) == (0, TEXT + "\n"), found.stderr
    found = run("vad", "--model", "someone/nothing", str(demo_clip()))
    assert found.returncode == 1
    assert "HF_HUB_OFFLINE" in found.stderr
