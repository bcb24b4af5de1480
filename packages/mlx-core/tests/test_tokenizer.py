"""Tokenizers: what a checkpoint's files say, saving, and what is refused."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers

from mlx_core import TokenizerError
from mlx_core.testing import byte_tokenizer
from mlx_core.text import Tokenizer, expansion, load_tokenizer, tokenizer

pytestmark = pytest.mark.text

TEXTS = json.loads((Path(__file__).parent / "goldens" / "tokenizer" / "words.json").read_text(encoding="utf-8"))[
    "texts"
]
HELLO = [{"role": "user", "content": "Hello"}]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<u>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)


def trained():
    """A small byte-level BPE: `<s>` is 0, `</s>` is 1, and `<u>`, added but not special, is 399."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=399,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(TEXTS, trainer)
    backend.add_tokens([AddedToken("<u>", normalized=False)])
    return backend


@pytest.fixture(scope="module")
def backend_json():
    return trained().to_str()


@pytest.fixture
def folder(tmp_path, backend_json):
    """A checkpoint's folder: `write(folder, name=entries)` gives it further files."""
    (tmp_path / "tokenizer.json").write_text(backend_json, encoding="utf-8")
    return tmp_path


def write(folder, **files):
    for name, entries in files.items():
        (folder / f"{name}.json").write_text(json.dumps(entries), encoding="utf-8")
    return folder


# --- Text and tokens


@given(text=st.text())
def test_any_text_comes_back(text):
    t = byte_tokenizer()
    assert t.decode(t.encode(text)) == text
    stream = t.detokenizer()
    assert "".join([*map(stream.add, t.encode(text)), stream.flush()]) == text


def test_special_tokens_are_recognised_and_may_be_skipped(folder):
    t = load_tokenizer(write(folder, tokenizer_config={"eos_token": "</s>"}))
    ids = t.encode("a</s><u>b")
    assert [t.token(i) for i in ids] == ["a", "</s>", "<u>", "b"]
    assert t.decode(ids) == "a</s><u>b"
    assert t.decode(ids, skip_special_tokens=True) == "a<u>b"


def test_ids_of_any_kind_are_decoded(folder):
    t = load_tokenizer(folder)
    ids = t.encode("Hello")
    for form in (
        ids,
        tuple(ids),
        iter(ids),
        np.array(ids),
        np.array(ids, np.uint16),
        mx.array(ids),
        map(np.int64, ids),
    ):
        assert t.decode(form) == "Hello"
    assert t.decode([]) == t.decode(mx.array([], mx.int32)) == ""


def test_ids_outside_the_vocabulary_have_no_text(folder):
    t = load_tokenizer(folder)
    ids = t.encode("Hi")
    assert t.decode([t.vocab_size, *ids, 2**31, 2**32, 2**70]) == "Hi"
    assert t.token(t.vocab_size) is None
    assert t.token(2**40) is None


@pytest.mark.parametrize(
    "ids", [[-1], np.array([3, -2]), [1.0], ["a"], "12", 5, None, [[1, 2]], mx.array([[1]]), np.array(5)]
)
def test_what_is_no_sequence_of_ids_is_refused(folder, ids):
    t = load_tokenizer(folder)
    with pytest.raises(TokenizerError, match="token id"):
        t.decode(ids)


@pytest.mark.parametrize(
    ("text", "message"),
    [(b"x", "found bytes"), (None, "found NoneType"), (HELLO, "encode_chat"), ("a\ud83d", "index 1")],
)
def test_what_is_no_text_is_refused(folder, text, message):
    with pytest.raises(TokenizerError, match=message):
        load_tokenizer(folder).encode(text)


def test_tokens_have_ids_and_names(folder):
    t = load_tokenizer(folder)
    assert t.token_id("<u>") == 399
    assert t.token(399) == "<u>"
    assert t.token(np.int32(399)) == "<u>"
    assert t.token_id("no such token") is None
    assert t.vocab_size == 400
    with pytest.raises(TokenizerError, match="0 or more"):
        t.token(-1)


# --- What the files of a folder say


def test_a_folder_needs_no_more_than_tokenizer_json(folder):
    t = load_tokenizer(str(folder))
    assert (t.bos_token_id, t.eos_token_id, t.pad_token_id, t.eos_token_ids) == (None, None, None, ())
    assert (t.has_chat_template, t.chat_template) == (False, None)
    with pytest.raises(TokenizerError, match="no chat template"):
        t.apply_chat_template(HELLO)


@pytest.mark.parametrize(
    ("files", "ids"),
    [
        ({"tokenizer_config": {"bos_token": "<s>", "eos_token": "</s>", "pad_token": None}}, (0, 1, None)),
        ({"tokenizer_config": {"eos_token": {"__type": "AddedToken", "content": "</s>"}}}, (None, 1, None)),
        ({"special_tokens_map": {"bos_token": {"content": "<s>"}, "pad_token": "<u>"}}, (0, None, 399)),
        ({"special_tokens_map": {"bos_token": "<u>"}, "tokenizer_config": {"bos_token": "<s>"}}, (0, None, None)),
        ({"special_tokens_map": {"bos_token": "<s>"}, "tokenizer_config": {"bos_token": None}}, (0, None, None)),
        ({"tokenizer_config": {"bos_token": "<unheard of>", "eos_token": 5}}, (None, None, None)),
    ],
)
def test_special_tokens_by_name(folder, files, ids):
    t = load_tokenizer(write(folder, **files))
    assert (t.bos_token_id, t.eos_token_id, t.pad_token_id) == ids


@pytest.mark.parametrize(
    ("files", "ids"),
    [
        ({"tokenizer_config": {"eos_token": "</s>"}}, (1,)),
        ({"generation_config": {"eos_token_id": 7}}, (7,)),
        ({"generation_config": {"eos_token_id": [7, 1, 7]}, "tokenizer_config": {"eos_token": "</s>"}}, (1, 7)),
        ({"generation_config": {"eos_token_id": None}, "config": {"eos_token_id": [9]}}, (9,)),
        ({"generation_config": {"eos_token_id": 8}, "config": {"eos_token_id": -1}}, (8,)),
    ],
)
def test_the_tokens_that_end_an_answer(folder, files, ids):
    t = load_tokenizer(write(folder, **files))
    assert t.eos_token_ids == ids
    assert t.eos_token_id == ids[0]


@pytest.mark.parametrize("value", ["</s>", 1.5, [1, None], True, {"id": 1}])
def test_an_end_that_is_no_id_is_refused(folder, value):
    with pytest.raises(TokenizerError, match="eos_token_id must be"):
        load_tokenizer(write(folder, generation_config={"eos_token_id": value}))


@pytest.mark.parametrize(
    ("config", "ids"),
    [
        ({"add_bos_token": True}, ["<s>", "a"]),
        ({"add_eos_token": True}, ["a", "</s>"]),
        ({"add_bos_token": True, "add_eos_token": True}, ["<s>", "a", "</s>"]),
        ({"add_bos_token": False}, ["a"]),
        ({}, ["a"]),
    ],
)
def test_tokens_around_a_text(folder, config, ids):
    t = load_tokenizer(write(folder, tokenizer_config={"bos_token": "<s>", "eos_token": "</s>", **config}))
    assert [t.token(i) for i in t.encode("a")] == ids
    assert [t.token(i) for i in t.encode("a", add_special_tokens=False)] == ["a"]
    assert t.encode_chat(HELLO, template="a") == t.encode("a", add_special_tokens=False)


def test_the_config_may_know_of_further_tokens(folder):
    added = {"400": {"content": "<tool>", "special": False, "normalized": False}, "0": {"content": "<s>"}}
    config = {"added_tokens_decoder": added, "additional_special_tokens": ["<u>", "<unheard of>"]}
    t = load_tokenizer(write(folder, tokenizer_config=config))
    assert t.encode("<tool><u>") == [400, 399]
    assert t.vocab_size == 401
    assert t.decode([400, 399], skip_special_tokens=True) == "<tool>"  # <u> has become special
    assert "".join(map(t.detokenizer().add, [400, 399])) == "<tool>"


@pytest.mark.parametrize(
    "config",
    [{"extra_special_tokens": ["<u>"]}, {"extra_special_tokens": {"user": {"content": "<u>"}}}, {"x_token": "<u>"}],
)
def test_the_config_may_say_that_a_token_is_special(folder, config):
    t = load_tokenizer(write(folder, tokenizer_config=config))
    assert t.decode([399], skip_special_tokens=True) == t.detokenizer().add(399) == ""


def test_an_added_token_keeps_the_name_that_tokenizer_json_has_for_it(folder):
    t = load_tokenizer(write(folder, tokenizer_config={"added_tokens_decoder": {"0": {"content": "<begin>"}}}))
    assert (t.token(0), t.token_id("<begin>")) == ("<s>", None)


def test_a_config_of_another_tokenizer_is_refused(folder):
    config = {"added_tokens_decoder": {"777": {"content": "<tool>"}}}
    with pytest.raises(TokenizerError, match=r"'<tool>' is token 777.*comes to be 400"):
        load_tokenizer(write(folder, tokenizer_config=config))


def test_texts_are_neither_cut_nor_padded(folder):
    backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.enable_truncation(2)
    backend.enable_padding(length=9)
    backend.save(str(folder / "tokenizer.json"))
    t = load_tokenizer(folder)
    assert t.decode(t.encode("Hello, wide world")) == "Hello, wide world"
    assert len(t.encode("a")) == 1


# --- Chat templates


def test_a_chat_is_rendered_and_encoded(folder):
    config = {"bos_token": "<s>", "add_bos_token": True, "chat_template": TEMPLATE}
    t = load_tokenizer(write(folder, tokenizer_config=config))
    assert t.has_chat_template
    assert t.chat_template == TEMPLATE
    assert t.apply_chat_template(HELLO) == "<s><u>Hello<a>"
    assert t.apply_chat_template(HELLO, add_generation_prompt=False) == "<s><u>Hello"
    assert t.apply_chat_template(HELLO, bos_token="x", template="{{ bos_token }}{{ more }}", more=1) == "x1"
    assert t.decode(t.encode_chat(HELLO)) == "<s><u>Hello<a>"  # one <s>, not two
    assert t.decode(t.encode_chat(HELLO, add_generation_prompt=False, bos_token="")) == "<u>Hello"


def test_named_templates(folder):
    named = [
        {"name": "default", "template": "D"},
        {"name": "tool_use", "template": "T"},
        {"name": "rag", "template": "R"},
    ]
    t = load_tokenizer(write(folder, tokenizer_config={"chat_template": named}))
    assert t.chat_template == "D"
    assert t.apply_chat_template(HELLO) == t.apply_chat_template(HELLO, tools=[]) == "D"
    assert t.apply_chat_template(HELLO, tools=[{"name": "f"}]) == "T"
    assert t.apply_chat_template(HELLO, template="rag") == "R"


def test_templates_in_files_of_their_own(folder):
    write(folder, tokenizer_config={"chat_template": "config"}, chat_template={"chat_template": "json"})
    assert load_tokenizer(folder).chat_template == "config"
    (folder / "tokenizer_config.json").unlink()
    assert load_tokenizer(folder).chat_template == "json"
    (folder / "chat_template.jinja").write_text("jinja é", encoding="utf-8")
    assert load_tokenizer(folder).chat_template == "jinja é"
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "rag.jinja").write_text("more", encoding="utf-8")
    t = load_tokenizer(folder)
    assert t.chat_template == "jinja é"
    assert t.apply_chat_template(HELLO, template="rag") == "more"


def test_a_byte_order_mark_is_no_text(folder):
    (folder / "chat_template.jinja").write_bytes(b"\xef\xbb\xbfx")
    assert load_tokenizer(folder).chat_template == "x"


# --- Saving


def state(t):
    texts = [text + end for text in TEXTS for end in ("", "</s><u>")]
    return (
        [t.encode(text) for text in texts],
        [t.decode(t.encode(text), skip_special_tokens=True) for text in texts],
        (t.bos_token_id, t.eos_token_id, t.pad_token_id, t.eos_token_ids, t.vocab_size, t.chat_template),
        t.apply_chat_template(HELLO, tools=[{}]) if t.has_chat_template else None,
    )


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"eos_token": "</s>", "chat_template": TEMPLATE, "tokenizer_class": "Qwen2Tokenizer", "model_max_length": 7},
        {
            "bos_token": {"content": "<s>"},
            "add_bos_token": True,
            "additional_special_tokens": ["<u>"],
            "chat_template": [{"name": "default", "template": "é"}, {"name": "tool_use", "template": "T"}],
        },
    ],
)
def test_what_is_saved_loads_as_it_was(folder, tmp_path, config):
    t = load_tokenizer(write(folder, tokenizer_config=config, generation_config={"eos_token_id": [1, 5]}))
    t.save(tmp_path / "a" / "b")
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
    assert state(load_tokenizer(tmp_path / "a" / "b")) == state(t)
    saved = json.loads((tmp_path / "a" / "b" / "tokenizer_config.json").read_text())
    assert saved["tokenizer_class"] == config.get("tokenizer_class", "PreTrainedTokenizerFast")
    assert config.get("model_max_length") == saved.get("model_max_length")


def test_code_of_the_checkpoints_own_is_not_asked_for_again(folder, tmp_path):
    config = {"auto_map": {"AutoTokenizer": ["tokenization_x.X", None]}, "tokenizer_class": "X"}
    load_tokenizer(write(folder, tokenizer_config=config)).save(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    assert "auto_map" not in saved
    assert saved["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_saving_is_whole_or_nothing(folder, tmp_path, monkeypatch):
    t = load_tokenizer(folder)
    target = tmp_path / "saved"
    t.save(target)
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    written = []

    def full_disk(path, *args, **kwargs):
        written.append(path.name)
        if len(written) == 2:
            raise OSError("no space left")
        path.write_bytes(b"half")

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(TokenizerError, match="no space left"):
        t.save(target)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before


def test_saving_into_a_file_is_refused(folder):
    with pytest.raises(TokenizerError, match="can't be saved"):
        load_tokenizer(folder).save(folder / "tokenizer.json")


# --- Folders and files that are refused


def test_an_empty_folder_is_told_what_is_missing(tmp_path):
    with pytest.raises(
        TokenizerError, match=r"none of tokenizer\.json, tokenizer\.model and \*\.tiktoken, and not one \.gguf"
    ):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("name", ["vocab.txt", "spiece.model", "vocab.json"])
def test_a_slow_tokenizer_is_told_how_to_be_converted(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(TokenizerError, match=rf"has {name} but no tokenizer\.json.*save_pretrained"):
        load_tokenizer(tmp_path)


def test_a_file_of_another_kind_is_refused(folder):
    with pytest.raises(TokenizerError, match="neither a folder nor"):
        load_tokenizer(folder / "tokenizer.json")


DAMAGED = [
    b"",
    b"null",
    b"{}",
    b"\xff\xfe",
    b"[" * 200_000,
    b'{"model":' * 100_000,
    b'{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}',
    b'{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 4294967296}, "merges": []}}',
    b'{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}}',
    b'{"version": "1.0", "model": {"type": "Guess"}}',
]


@pytest.mark.parametrize("data", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_tokenizer_json_is_refused(tmp_path, data):
    (tmp_path / "tokenizer.json").write_bytes(data)
    with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    "name", ["tokenizer_config", "special_tokens_map", "generation_config", "config", "chat_template"]
)
@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b"{", b"[" * 200_000])
def test_a_damaged_config_is_refused(folder, name, data):
    (folder / f"{name}.json").write_bytes(data)
    with pytest.raises(TokenizerError, match=rf"{name}\.json"):
        load_tokenizer(folder)


@pytest.mark.parametrize(
    "config",
    [
        {"added_tokens_decoder": {"x": {"content": "y"}}},
        {"added_tokens_decoder": {"400": "y"}},
        {"added_tokens_decoder": {"400": {"content": "y", "colour": 1}}},
        {"added_tokens_decoder": [1]},
        {"additional_special_tokens": 5},
        {"chat_template": 5},
        {"chat_template": [{"name": [], "template": "x"}]},
        {"chat_template": [{"name": "default"}]},
        {"chat_template": {"default": None}},
        {"eos_token_ids": "x"},
    ],
)
def test_entries_of_another_form_are_refused(folder, config):
    with pytest.raises(TokenizerError):
        load_tokenizer(write(folder, tokenizer_config=config))


@pytest.mark.parametrize(("limit", "name"), [("_MAX_TOKENIZER_BYTES", "tokenizer"), ("_MAX_CONFIG_BYTES", "config")])
def test_files_beyond_any_use_are_not_read(folder, monkeypatch, limit, name):
    write(folder, config={"more": "x" * 100})
    monkeypatch.setattr(tokenizer, limit, 50)
    with pytest.raises(TokenizerError, match=rf"{name}\.json has [\d,]+ bytes, more than the 50"):
        load_tokenizer(folder)


def test_ids_that_no_array_holds_are_refused(tmp_path):
    backend = tokenizers.Tokenizer(models.BPE({"a": 2**31}, []))
    with pytest.raises(TokenizerError, match="2147483648"):
        _ = Tokenizer(backend).vocab_size


def test_a_name_that_is_no_path_goes_to_the_hub(monkeypatch, folder):
    monkeypatch.setattr("mlx_core.checkpoints.hub.resolve", lambda name: folder if name == "org/model" else None)
    assert load_tokenizer("org/model").vocab_size == 400


def test_failures_of_the_library_are_told_apart(monkeypatch):
    class PanicException(BaseException):  # what Rust's panics come as; its class can't be imported
        pass

    class Backend:
        def encode(self, *args, **kwargs):
            raise self.error

    t = byte_tokenizer()
    monkeypatch.setattr(t, "_backend", Backend())
    for error, expected in ((PanicException("x"), TokenizerError), (KeyboardInterrupt(), KeyboardInterrupt)):
        Backend.error = error
        with pytest.raises(expected):
            t.encode("a")


@pytest.mark.parametrize("part", ["normalizer", "decoder"])
@pytest.mark.parametrize(
    "stages",
    [
        [{"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}] * 3,
        [{"type": "Replace", "pattern": {"String": "a"}, "content": "é" * 2049}],
        [{"type": "Replace", "pattern": {"Regex": ""}, "content": "a" * 4096}],
    ],
)
def test_vocabularies_that_make_texts_thousands_of_times_as_long_are_refused(folder, part, stages):
    """The library would end the process for want of memory."""
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    content[part] = {"type": "Sequence", f"{part}s": stages}
    write(folder, tokenizer=content)
    with pytest.raises(TokenizerError, match="times as long"):
        load_tokenizer(folder)


def test_prefixes_and_maps_count_for_what_they_add():
    def growth(*stages):
        backend = tokenizers.Tokenizer(models.BPE())
        backend.normalizer = normalizers.Sequence(list(stages))
        return expansion._expansion(json.loads(backend.normalizer.__getstate__()))

    assert growth(normalizers.Prepend("▁"), normalizers.Replace(" ", "▁"), normalizers.NFKC()) == 3
    assert growth(normalizers.Replace("aaaa", "b")) == 1
    assert growth(normalizers.Prepend("x" * 640)) == 10
    assert growth(normalizers.Sequence([normalizers.Replace("a", "bb")]), normalizers.Replace("b", "ccc")) == 6
    # a map of one unit, to a text of seven bytes and one of two
    assert expansion._longest_replacement(b"\4\0\0\0" + bytes(4) + b"longest\0ab\0") == 7
