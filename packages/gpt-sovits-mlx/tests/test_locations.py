"""Where networks are found: hub ids in a cache without a network, paths inside a folder, the released layout."""

import json

import mlx.core as mx
import numpy as np
import pytest
from huggingface_hub import constants

from gpt_sovits_mlx import convert
from gpt_sovits_mlx.checkpoints import PRETRAINED, Locations, resolve_network
from gpt_sovits_mlx.cli import main
from gpt_sovits_mlx.models import load_models
from gpt_sovits_mlx.networks import T2S, CNHubert, CNHubertConfig, SoVITS, SoVITSConfig, T2SConfig
from gpt_sovits_mlx.networks.released_sizes import randomised
from mlx_core.errors import HubError, InputError, MissingCheckpointError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """Make a repository in a Hugging Face cache of its own, offline; returns the folder of its files."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "modelscope"))

    def make(name):
        repository = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text(COMMIT)
        snapshot = repository / "snapshots" / COMMIT
        snapshot.mkdir(parents=True)
        return snapshot

    return make


@pytest.fixture(scope="module")
def networks():
    hubert = CNHubertConfig(num_hidden_layers=1, intermediate_size=64, num_attention_heads=4, conv_dim=[16] * 7)
    sovits = SoVITSConfig(
        inter_channels=16,
        hidden_channels=16,
        filter_channels=32,
        n_layers=2,
        resblock_kernel_sizes=[3],
        resblock_dilation_sizes=[[1]],
        upsample_initial_channel=128,
    )
    t2s = T2SConfig(embedding_dim=32, hidden_dim=32, head=2, linear_units=32, n_layer=1)
    made = {
        "t2s": randomised(T2S(t2s), 1),
        "sovits": randomised(SoVITS(sovits, 732, speaker=False), 2),
        "hubert": randomised(CNHubert(hubert), 3),
    }
    for network in made.values():
        network.checkpoint_config = dict(network.config.__dict__)
    return made


def same(network, other):
    expected, found = network.state_dict(), other.state_dict()
    return expected.keys() == found.keys() and all(
        np.allclose(np.array(expected[name].astype(mx.float32)), np.array(found[name].astype(mx.float32)), atol=1e-2)
        for name in expected
    )


def test_a_hub_id_for_all_networks(cached, networks):
    folder = cached("someone/voices")
    for name, network in networks.items():
        network.save(folder / name)
    models = load_models("someone/voices")
    assert models.version == "v2"
    assert all(same(network, getattr(models, name)) for name, network in networks.items())


def test_hub_ids_for_single_networks(cached, networks, tmp_path):
    for name in ("t2s", "sovits"):
        networks[name].save(tmp_path / "models" / name)
    repository = cached("someone/hubert")
    networks["hubert"].save(tmp_path / "made")
    for file in (tmp_path / "made").iterdir():
        file.rename(repository / file.name)
    with pytest.raises(MissingCheckpointError, match="no hubert"):
        load_models(tmp_path / "models")
    models = load_models(tmp_path / "models", paths={"hubert": "someone/hubert"})
    assert same(networks["hubert"], models.hubert)
    assert same(networks["hubert"], CNHubert.load("someone/hubert"))
    with pytest.raises(HubError, match="someone/other"):
        load_models(tmp_path / "models", paths={"hubert": "someone/other"})


def test_convert_and_info_take_hub_ids(cached, networks, tmp_path, capsys):
    repository = cached("someone/t2s")
    networks["t2s"].save(tmp_path / "made")
    for file in (tmp_path / "made").iterdir():
        file.rename(repository / file.name)
    assert convert("someone/t2s", tmp_path / "converted") is T2S
    assert same(networks["t2s"], T2S.load(tmp_path / "converted"))
    assert main(["info", "someone/t2s", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["network"] == "gpt-sovits-t2s"
    assert main(["info", "someone/none"]) == 1
    assert "someone/none" in capsys.readouterr().err


@pytest.mark.parametrize("version", PRETRAINED)
def test_pretrained_networks_by_version(cached, version):
    """The released folder, which holds those of all versions beside each other."""
    folder = cached("someone/GPT-SoVITS")
    for path in {path for pair in PRETRAINED.values() for path in pair} | {"gsv-v4-pretrained/vocoder.pth"}:
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).touch()
    (folder / "models--nvidia--bigvgan_v2_24khz_100band_256x").mkdir()
    with pytest.raises(InputError, match="several files for t2s"):
        Locations("someone/GPT-SoVITS").need("t2s")
    found = Locations("someone/GPT-SoVITS", version=version)
    assert (found.need("t2s"), found.need("sovits")) == tuple(folder / path for path in PRETRAINED[version])
    if version in ("v3", "v4"):
        assert found.need("vocoder", version).name.startswith({"v3": "models--nvidia", "v4": "vocoder"}[version])
    mine = folder / "mine.pth"
    mine.touch()
    assert Locations(folder, {"sovits": mine}, version).need("sovits") == mine


def test_a_copy_without_the_named_networks_is_not_whole(cached):
    folder = cached("someone/GPT-SoVITS")
    for path in PRETRAINED["v1"]:
        (folder / path).touch()
    assert Locations("someone/GPT-SoVITS", version="v1").need("sovits") == folder / "s2G488k.pth"
    with pytest.raises(MissingCheckpointError, match=r"no s1v3\.ckpt"):
        Locations("someone/GPT-SoVITS", version="v2Pro")


def test_paths_inside_the_folder(tmp_path):
    (tmp_path / "v2Pro").mkdir()
    (tmp_path / "v2Pro" / "a.pth").touch()
    assert Locations(tmp_path, {"sovits": "v2Pro/a.pth"}).need("sovits") == tmp_path / "v2Pro" / "a.pth"
    assert resolve_network(tmp_path / "v2Pro" / "a.pth") == tmp_path / "v2Pro" / "a.pth"
    with pytest.raises(InputError, match="version must be"):
        Locations(tmp_path, version="v9")
