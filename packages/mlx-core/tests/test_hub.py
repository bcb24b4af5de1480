"""Ids of models: caches of both hubs as their own libraries lay them out, and downloads without a network.

What is looked up locally is looked up by huggingface_hub itself, in a cache made here; what would ask a hub is replaced.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import types

import huggingface_hub
import huggingface_hub.constants
import pytest

from mlx_core.checkpoints import hub
from mlx_core.errors import HubError, InputError, MissingCheckpointError
from mlx_core.text import load_tokenizer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL = ("config.json", "model.safetensors", "tokenizer.json")


class Cache:
    """The caches of both hubs in a folder of the test's, and a stand-in for what the hubs would answer."""

    def __init__(self, root, monkeypatch):
        self.huggingface, self.modelscope = root / "hf", root / "ms"
        self.monkeypatch, self.asked = monkeypatch, []
        self.remote: dict[str, list[str]] = {}
        local = huggingface_hub.snapshot_download

        def snapshot_download(repo, *, local_files_only=False, **options):
            if local_files_only:
                return local(repo, local_files_only=True, **options)
            return self.download("hf", repo, **options)

        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(self.huggingface))
        monkeypatch.setenv("MODELSCOPE_CACHE", str(self.modelscope))
        monkeypatch.delenv("MLX_CORE_USE_MODELSCOPE", raising=False)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
        monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda repo, revision: self.names("hf", repo))

    def names(self, source, repo):
        self.asked.append(f"{source}:{repo}")
        if f"{source}:{repo}" not in self.remote:
            raise ConnectionError("the test's network is down")
        return self.remote[f"{source}:{repo}"]

    def download(self, source, repo, *, revision=None, allow_patterns, ignore_patterns):
        chosen = huggingface_hub.utils.filter_repo_objects(
            self.names(source, repo), allow_patterns=allow_patterns, ignore_patterns=ignore_patterns
        )
        return self.snapshot(repo, *chosen) if source == "hf" else self.fill(self.modelscope / "new", *chosen)

    def snapshot(self, repo, *names, commit=COMMIT, revision="main"):
        """Files in huggingface_hub's layout: refs, snapshots."""
        folder = self.huggingface / f"models--{repo.replace('/', '--')}"
        (folder / "refs").mkdir(parents=True, exist_ok=True)
        (folder / "refs" / revision).write_text(commit)
        return self.fill(folder / "snapshots" / commit, *names)

    def fill(self, folder, *names):
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
        return folder

    def install_modelscope(self):
        """A package by modelscope's name, which prints as the real one does."""

        def snapshot_download(repo, *, revision, allow_patterns, ignore_patterns):
            sys.stdout.write("Downloading Model\n")
            return str(self.download("ms", repo, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns))

        class HubApi:
            def get_model_files(api, repo, *, revision, recursive):
                assert recursive
                return [{"Path": "sub", "Type": "tree"}, *({"Path": name} for name in self.names("ms", repo))]

        api = types.ModuleType("modelscope.hub.api")
        api.HubApi = HubApi
        package = types.ModuleType("modelscope")
        package.snapshot_download = snapshot_download
        for module in (package, types.ModuleType("modelscope.hub"), api):
            self.monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    return Cache(tmp_path, monkeypatch)


def test_paths_are_themselves_and_what_is_no_id_is_refused(cache, tmp_path):
    assert hub.resolve(tmp_path) == tmp_path
    assert hub.resolve(str(tmp_path)) == tmp_path
    for name in ("./nowhere", "a/b/c", "nowhere", "-a/b", "a/b:", "a/b:../x", "elsewhere:a/b", tmp_path / "a" / "b"):
        with pytest.raises(MissingCheckpointError, match=r"does not exist.*org/name:Q4_K_M"):
            hub.resolve(name)
    with pytest.raises(MissingCheckpointError, match="can't be a path"):
        hub.resolve("x" * 5000)
    with pytest.raises(InputError, match="list of patterns"):
        hub.resolve("org/model", patterns="*.pt")
    assert not cache.asked


# The caches


def test_a_whole_copy_is_used_without_asking(cache):
    folder = cache.snapshot("org/model", *MODEL)
    assert hub.resolve("org/model") == folder
    assert hub.resolve("huggingface:org/model") == folder
    other = cache.snapshot("org/model", *MODEL, commit="f" * 40, revision="v2")
    assert hub.resolve("org/model", revision="v2") == other
    assert hub.resolve("org/model", revision="f" * 40) == other
    assert not cache.asked


@pytest.mark.parametrize(
    "names",
    [
        ("config.json", "tokenizer.json"),
        ("config.json", "model.safetensors"),
        ("config.json", "tokenizer.json", "model-00001-of-00002.safetensors"),
        ("config.json", "tokenizer.json", "adapters.bin"),
        ("config.json", "tokenizer.json", "pytorch_model-00002-of-00002.bin"),
    ],
)
def test_a_part_of_a_model_is_completed_if_the_hub_answers(cache, names):
    folder = cache.snapshot("org/model", *names)
    assert hub.resolve("org/model") == folder  # the hub doesn't answer: whoever reads it says what it lacks
    cache.remote["hf:org/model"] = [*MODEL, "README.md"]
    assert hub.resolve("org/model") == folder
    assert cache.asked == ["hf:org/model"] * 3
    assert all((folder / name).exists() for name in MODEL)
    assert not (folder / "README.md").exists()


def test_an_index_says_what_is_whole(cache):
    folder = cache.snapshot("org/model", "config.json", "tokenizer.model", "a.safetensors")
    index = folder / "model.safetensors.index.json"
    for content, whole in [
        ({"weight_map": {"x": "a.safetensors"}}, True),
        ({"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}, False),
        ({"weight_map": {"x": ["a.safetensors"]}}, False),
        ({"weight_map": 7}, False),
        ([], False),
    ]:
        index.write_text(json.dumps(content))
        cache.asked.clear()
        assert hub.resolve("org/model") == folder
        assert bool(cache.asked) != whole
    index.write_text("[" * 10**5)
    assert hub.resolve("org/model") == folder


def test_the_index_of_another_copy_does_not_count(cache):
    folder = cache.snapshot("org/model", *MODEL)
    (folder / "pytorch_model.bin.index.json").write_text('{"weight_map": {"x": "pytorch_model-00001-of-00002.bin"}}')
    assert hub.resolve("org/model") == folder
    assert not cache.asked
    (folder / "model.safetensors").unlink()
    assert hub.resolve("org/model") == folder
    assert cache.asked


def test_files_that_huggingface_hub_knows_to_be_missing_are_fetched(cache):
    """An interrupted download: all weights are there, but the list of files that the library keeps names one more."""
    if not hasattr(huggingface_hub, "get_cached_repo_tree"):
        pytest.skip("this huggingface_hub keeps no lists")
    from huggingface_hub._tree_cache import TreeCacheEntry, write_tree_cache

    folder = cache.snapshot("org/model", *MODEL)
    entry = TreeCacheEntry(size=0, blob_id="0", lfs_sha256=None, lfs_size=None, xet_hash=None)
    names = [*MODEL, "generation_config.json", "README.md", "consolidated.safetensors"]
    write_tree_cache(str(folder.parents[1]), COMMIT, dict.fromkeys(names, entry))
    cache.remote["hf:org/model"] = names
    hub.resolve("org/model")
    assert cache.asked
    assert (folder / "generation_config.json").exists()
    cache.asked.clear()
    assert hub.resolve("org/model") == folder
    assert not cache.asked


@pytest.mark.parametrize(
    "place",
    [
        "models/org--model-1.5/snapshots/master",  # modelscope 1.38 and later
        "models/org--model-1.5/snapshots/main",
        "models/org--model-1.5/snapshots/v3",
        "models/org/model-1___5",  # before, with MODELSCOPE_CACHE
        "hub/models/org/model-1___5",  # and without
        "models/org/model-1.5",
        "org/model-1___5",  # the oldest
        "hub/org/model-1___5",
        "hub/org/model-1.5",
    ],
)
def test_modelscope_s_cache_is_looked_at_too(cache, place):
    folder = cache.fill(cache.modelscope / place, *MODEL)
    assert hub.resolve("org/model-1.5") == folder
    assert hub.resolve("modelscope:org/model-1.5") == folder
    assert not cache.asked
    with pytest.raises(HubError):
        hub.resolve("huggingface:org/model-1.5")
    in_hub = cache.snapshot("org/model-1.5", *MODEL)
    assert hub.resolve("org/model-1.5") == in_hub
    assert hub.resolve("modelscope:org/model-1.5") == folder
    cache.monkeypatch.setenv("MLX_CORE_USE_MODELSCOPE", "1")
    assert hub.resolve("org/model-1.5") == folder


def test_modelscope_s_default_cache(cache, tmp_path):
    cache.monkeypatch.delenv("MODELSCOPE_CACHE")
    cache.monkeypatch.setenv("HOME", str(tmp_path))
    folder = cache.fill(tmp_path / ".cache/modelscope/hub/models/org/model", *MODEL)
    assert hub.resolve("org/model") == folder


def test_revisions_of_modelscope_are_those_of_its_snapshots(cache):
    cache.fill(cache.modelscope / "models/org/model", *MODEL)  # no one knows of which revision
    second = cache.fill(cache.modelscope / "models/org--model/snapshots/v2", *MODEL)
    third = cache.fill(cache.modelscope / "models/org--model/snapshots/v3", *MODEL)
    assert hub.resolve("org/model", revision="v2") == second
    assert hub.resolve("org/model", revision="v3") == third
    assert hub.resolve("org/model") == cache.modelscope / "models/org/model"
    with pytest.raises(HubError):
        hub.resolve("org/model", revision="v4")


# Downloads


def test_downloads_take_one_copy_of_the_weights(cache):
    names = [*MODEL, "pytorch_model.bin", "original/params.json", "consolidated.safetensors", "chat_template.jinja"]
    cache.remote["hf:org/model"] = names
    found = hub.resolve("org/model")
    assert sorted(file.name for file in found.iterdir()) == sorted([*MODEL, "chat_template.jinja"])
    cache.remote["hf:org/old"] = ["config.json", "pytorch_model.bin", "training_args.bin", "vocab.txt"]
    found = hub.resolve("org/old")
    assert sorted(file.name for file in found.iterdir()) == ["config.json", "pytorch_model.bin", "vocab.txt"]


def test_patterns_are_of_further_files_and_tell_what_is_whole(cache):
    patterns = ["config.yaml", "am.mvn", "*.pt"]
    names = ["config.yaml", "am.mvn", "model.pt", "tokens.json", "example/asr.wav"]
    cache.remote["hf:org/speech"] = names
    found = hub.resolve("org/speech", patterns=patterns)
    assert sorted(file.name for file in found.iterdir()) == ["am.mvn", "config.yaml", "model.pt", "tokens.json"]
    cache.asked.clear()
    assert hub.resolve("org/speech", patterns=patterns) == found
    assert not cache.asked
    (found / "am.mvn").unlink()
    hub.resolve("org/speech", patterns=patterns)
    assert (found / "am.mvn").exists()
    (found / "model.pt").unlink()
    hub.resolve("org/speech", patterns=patterns)
    assert (found / "model.pt").exists()


def test_patterns_may_lie_in_folders(cache):
    patterns = ["gsv-v2final/s2G.pth", "consolidated.safetensors"]
    cache.remote["hf:org/voices"] = [*patterns, "gsv-v3/s2G.pth"]
    found = hub.resolve("org/voices", patterns=patterns)
    assert (found / patterns[0]).exists()
    assert not (found / "gsv-v3").exists()
    cache.asked.clear()
    assert hub.resolve("org/voices", patterns=patterns) == found
    assert not cache.asked


@pytest.mark.parametrize("switch", ["prefix", "1", "True"])
def test_modelscope_downloads_where_it_was_asked_for(cache, switch, capsys):
    cache.install_modelscope()
    cache.remote["ms:org/model"] = cache.remote["hf:org/model"] = [*MODEL, "README.md"]
    if switch == "prefix":
        found = hub.resolve("modelscope:org/model")
    else:
        cache.monkeypatch.setenv("MLX_CORE_USE_MODELSCOPE", switch)
        found = hub.resolve("org/model")
    assert sorted(file.name for file in found.iterdir()) == sorted(MODEL)
    assert cache.asked == ["ms:org/model"] * 2
    streams = capsys.readouterr()
    assert (streams.out, streams.err) == ("", "Downloading Model\n")


def test_without_modelscope_s_package_the_error_says_so(cache):
    cache.monkeypatch.setitem(sys.modules, "modelscope", None)
    cache.monkeypatch.setitem(sys.modules, "modelscope.hub.api", None)
    with pytest.raises(
        HubError, match=r"modelscope:org/model.*ModelScope didn't give it \(the package.*pip install modelscope"
    ):
        hub.resolve("modelscope:org/model")
    cache.monkeypatch.setenv("MLX_CORE_USE_MODELSCOPE", "perhaps")
    with pytest.raises(InputError, match=r"MLX_CORE_USE_MODELSCOPE is 'perhaps'; expected 1"):
        hub.resolve("org/model")


def test_errors_name_what_was_tried(cache):
    with pytest.raises(HubError) as caught:
        hub.resolve("org/model")
    for part in (
        "'org/model' is no local path",
        str(cache.huggingface),
        str(cache.modelscope),
        str(cache.modelscope / "hub"),
        "the Hugging Face hub didn't give it (ConnectionError: the test's network is down)",
        "hf auth login",
    ):
        assert part in str(caught.value)
    cache.monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        hub.resolve("org/model")
    cache.remote["hf:org/model"] = list(MODEL)

    def full(*_, local_files_only=False, **__):
        raise OSError("the disk is full")

    cache.monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    cache.monkeypatch.setattr(huggingface_hub, "snapshot_download", full)
    with pytest.raises(HubError, match="the disk is full"):
        hub.resolve("org/model")


# GGUF

QUANTISATIONS = ["model-Q4_K_M.gguf", "model-Q8_0.gguf", "BF16/model-BF16-00001-of-00002.gguf"]
REPOSITORY = [*QUANTISATIONS, "BF16/model-BF16-00002-of-00002.gguf", "mmproj-F16.gguf", "README.md", "config.json"]


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        ("org/gguf", QUANTISATIONS[0]),
        ("org/gguf:Q4_K_M", QUANTISATIONS[0]),
        ("org/gguf:q8_0", QUANTISATIONS[1]),
        ("org/gguf:model-Q8_0.gguf", QUANTISATIONS[1]),
        ("huggingface:org/gguf:bf16", QUANTISATIONS[2]),
    ],
)
def test_of_a_repository_of_gguf_files_one_is_downloaded(cache, name, chosen):
    cache.remote["hf:org/gguf"] = REPOSITORY
    found = hub.resolve(name)
    assert found == cache.huggingface / "models--org--gguf" / "snapshots" / COMMIT / chosen
    snapshot = found.parents[chosen.count("/")]
    files = {file.relative_to(snapshot).as_posix() for file in snapshot.rglob("*.*") if file.is_file()}
    assert files == {chosen, chosen.replace("1-of", "2-of")}
    if ":" in name.removeprefix("huggingface:"):
        cache.asked.clear()
        assert hub.resolve(name) == found
        assert not cache.asked


def test_the_only_model_needs_no_name_and_then_llama_cpp_s_defaults_hold(cache):
    for names, chosen in [
        (["a-IQ2_XS.gguf", "mmproj-a.gguf"], "a-IQ2_XS.gguf"),
        (["a-Q2_K.gguf", "a-q8_0.gguf"], "a-q8_0.gguf"),
        (["a-Q2_K.gguf", "a.q4_k_m.gguf", "a-Q8_0.gguf"], "a.q4_k_m.gguf"),
    ]:
        cache.remote["hf:org/gguf"] = names
        assert hub.resolve("org/gguf").name == chosen
    cache.remote["hf:org/both"] = [*MODEL, "a-Q4_K_M.gguf"]
    found = hub.resolve("org/both")
    assert found.is_dir()  # safetensors come first where no one asks for GGUF
    assert hub.resolve("org/both:q4_k_m") == found / "a-Q4_K_M.gguf"


def test_no_match_and_several_list_what_there_is(cache):
    cache.remote["hf:org/gguf"] = ["a-Q2_K.gguf", "b-Q2_K.gguf", "a-Q3_K-00001-of-00002.gguf"]
    for name, message in [
        ("org/gguf:Q5_0", r"has no GGUF models for 'Q5_0'.*a-Q2_K\.gguf, a-Q3_K-00001-of-00002\.gguf, b-Q2_K\.gguf"),
        ("org/gguf", r"has no GGUF models for 'Q4_K_M or Q8_0'.*org/gguf:QUANTISATION.*a-Q2_K\.gguf"),
        ("org/gguf:Q2_K", r"has 2 GGUF models for 'Q2_K'; expected one.*It has a-Q2_K\.gguf, b-Q2_K\.gguf\."),
        ("org/gguf:Q3_K", r"lacks a-Q3_K-00002-of-00002\.gguf"),
    ]:
        with pytest.raises(HubError, match=message):
            hub.resolve(name)
    cache.remote["hf:org/model"] = list(MODEL)
    with pytest.raises(HubError, match="It has no GGUF model"):
        hub.resolve("org/model:Q4_K_M")


def test_offline_the_cached_gguf_files_are_what_there_is(cache):
    folder = cache.snapshot("org/gguf", "a-Q2_K.gguf")
    assert hub.resolve("org/gguf:q2_k") == folder / "a-Q2_K.gguf"
    assert not cache.asked
    assert hub.resolve("org/gguf") == folder / "a-Q2_K.gguf"
    assert cache.asked
    with pytest.raises(HubError, match=r"copy in .*no hub gave more: Conn.*'Q8_0'.*It has a-Q2_K\.gguf"):
        hub.resolve("org/gguf:Q8_0")
    cache.snapshot("org/gguf", "a-Q8_0-00001-of-00002.gguf")
    with pytest.raises(HubError, match=r"lacks a-Q8_0-00002-of-00002\.gguf"):
        hub.resolve("org/gguf:Q8_0")
    cache.snapshot("org/gguf", "a-Q8_0-00002-of-00002.gguf")
    assert hub.resolve("org/gguf:Q8_0") == folder / "a-Q8_0-00001-of-00002.gguf"


def test_gguf_files_of_modelscope(cache):
    cache.install_modelscope()
    cache.remote["ms:org/gguf"] = REPOSITORY
    assert hub.resolve("modelscope:org/gguf:Q8_0") == cache.modelscope / "new" / "model-Q8_0.gguf"
    folder = cache.fill(cache.modelscope / "models/org--gguf/snapshots/master", "model-Q8_0.gguf")
    assert hub.resolve("org/gguf:Q8_0") == folder / "model-Q8_0.gguf"


def gguf(metadata):
    """A GGUF file without tensors."""

    def value(v):
        if isinstance(v, int):
            return struct.pack("<II", 4, v)
        if isinstance(v, str):
            return struct.pack("<IQ", 8, len(v)) + v.encode()
        items = [value(item) for item in v]
        return struct.pack("<I", 9) + items[0][:4] + struct.pack("<Q", len(items)) + b"".join(i[4:] for i in items)

    head = b"GGUF" + struct.pack("<IQQ", 3, 0, len(metadata))
    return head + b"".join(value(key)[4:] + value(v) for key, v in metadata.items())


def test_the_tokenizer_of_a_gguf_model_on_the_hub_comes_from_the_file(cache):
    folder = cache.snapshot("org/gguf", "m-Q8_0-00001-of-00002.gguf", "m-Q8_0-00002-of-00002.gguf")
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": ["a", "b", "ab", "<|end|>"],
        "tokenizer.ggml.token_type": [1, 1, 1, 3],
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.eos_token_id": 3,
    }
    for number in range(2):
        said = {"split.no": number, "split.count": 2, **(metadata if number == 0 else {})}
        (folder / f"m-Q8_0-0000{number + 1}-of-00002.gguf").write_bytes(gguf(said))
    for place in ("org/gguf:Q8_0", "org/gguf", folder, folder / "m-Q8_0-00001-of-00002.gguf"):
        tokenizer = load_tokenizer(place)
        assert tokenizer.encode("abb") == [2, 1]
        assert list(tokenizer.eos_token_ids) == [3]


def test_neither_the_hub_nor_gguf_s_metadata_need_mlx():
    program = (
        "import sys; import mlx_core.checkpoints.hub, mlx_core.checkpoints.gguf.file, mlx_core.errors, mlx_core.files;"
        "found = [m for m in sys.modules if m.partition('.')[0] in ('mlx', 'huggingface_hub', 'modelscope')];"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
