"""Backends and their overrides, importing without MLX, and what importing loads."""

import subprocess
import sys
import textwrap

import mlx.core as mx
import pytest

from mlx_core import backend
from mlx_core.backend import device
from mlx_core.errors import BackendError
from mlx_core.testing import byte_tokenizer


def test_the_current_backend_is_the_default_device():
    current = backend.current()
    assert current.name in ("metal", "cuda", "cpu")
    assert (current.name == "cpu") == (mx.default_device().type == mx.DeviceType.cpu)
    assert current.memory_bytes > 2**28
    assert backend.peak_memory_bytes() > 0


def test_overrides_last_as_long_as_their_block():
    before = backend.current()
    with backend.override(compute_dtype=mx.float16, keep_packed=True):
        assert backend.current().compute_dtype == mx.float16
        assert backend.current().keep_packed
        with backend.override(keep_packed=False):
            assert backend.current().compute_dtype == mx.float16
            assert not backend.current().keep_packed
    assert backend.current() == before


def test_the_environment_overrides(monkeypatch):
    monkeypatch.setenv("MLX_CORE_DTYPE", "checkpoint")
    monkeypatch.setenv("MLX_CORE_PACKED", "1")
    assert backend.current().compute_dtype is None
    assert backend.current().keep_packed
    monkeypatch.setenv("MLX_CORE_PACKED", "maybe")
    with pytest.raises(BackendError, match="MLX_CORE_PACKED"):
        backend.current()


def test_weights_are_dequantised_on_any_device_that_is_told_to():
    """A limit of nothing would turn the switch off."""
    limit = backend.current().dequantize_limit_bytes
    assert 0.5 * backend.current().memory_bytes < limit < backend.current().memory_bytes


def test_wired_blocks_may_overlap(monkeypatch):
    """The limit holds from the first block's start to the last one's end."""
    limits = []
    metal = backend.Backend("metal", "M", None, keep_packed=True, memory_bytes=1000)
    monkeypatch.setattr(device, "_override", metal)
    monkeypatch.setattr(mx, "set_wired_limit", limits.append)
    first, second = backend.wired(), backend.wired()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert limits == [1000]
    second.__exit__(None, None, None)
    assert limits == [1000, 0]


@pytest.mark.parametrize(
    "statement",
    [
        "from mlx_core import load",
        *(f"import mlx_core.{name}" for name in ("cache", "config", "generation", "models", "ops")),
    ],
)
def test_without_a_backend_the_import_says_what_to_install(statement):
    result = without_mlx(statement)
    assert result.startswith("MissingBackendError")
    assert "mlx-core[cpu]" in result
    assert "mlx-core[cuda13]" in result


def test_text_and_errors_need_no_mlx():
    """A server's front end counts tokens and renders templates in a process of its own."""
    assert without_mlx("import mlx_core.text, mlx_core.errors; from mlx_core import Tokenizer, MLXCoreError") == ""


def test_text_and_errors_load_little():
    program = """
        import sys
        import mlx_core.text, mlx_core.errors
        print(*sorted({name for name in sys.modules} | {name.partition(".")[0] for name in sys.modules}))
    """
    loaded = run(program).split()
    assert "tokenizers" in loaded
    assert not set(loaded) & {"mlx.core", "numpy", "jinja2", "huggingface_hub", "transformers", "torch"}
    assert {name for name in loaded if name.startswith("mlx_core.")} == {
        "mlx_core.errors",
        *(name for name in loaded if name.startswith("mlx_core.text")),
    }


def test_folders_are_attributes():
    """Whatever was imported before: `import mlx_core; mlx_core.cache` works."""
    program = """
        import mlx_core
        for name in ("audio", "cache", "engines", "generation", "models", "ops", "text"):
            assert getattr(mlx_core, name).__name__ == f"mlx_core.{name}"
    """
    assert run(program) == ""


def test_a_tokenizer_works_without_mlx(tmp_path):
    byte_tokenizer(chat_template="{{ messages[0].content }}").save(tmp_path)
    statement = f"""
            from mlx_core.text import load_tokenizer, parse_reply
            tokenizer = load_tokenizer({str(tmp_path)!r})
            ids = tokenizer.encode_chat([{{"role": "user", "content": "é"}}])
            reply = parse_reply(tokenizer.decode(ids), format="hermes")
            print(len(ids), reply.text.encode())
    """
    assert without_mlx(statement.strip()) == "2 b'\\xc3\\xa9'\n"


def without_mlx(statement):
    """The output of a statement where MLX can't be imported, or the ImportError."""
    program = f"""
        import sys
        class Missing:
            def find_spec(self, name, path=None, target=None):
                if name == "mlx.core":
                    raise ImportError("libmlx.so: cannot open shared object file")
        sys.meta_path.insert(0, Missing())
        try:
            {statement}
        except ImportError as error:
            print(type(error).__name__, error)
    """
    return run(program)


def run(program):
    command = [sys.executable, "-c", textwrap.dedent(program)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_importing_changes_no_limit_and_loads_little():
    program = """
        import sys
        import mlx.core as mx
        before = mx.get_memory_limit(), mx.default_device(), [key.tolist() for key in mx.random.state]
        import mlx_core
        assert before == (mx.get_memory_limit(), mx.default_device(), [key.tolist() for key in mx.random.state])
        print(*sorted({name.partition(".")[0] for name in sys.modules}))
    """
    loaded = set(run(program).split())
    assert not loaded & {"transformers", "torch", "librosa", "numba", "huggingface_hub", "jinja2", "numpy"}
