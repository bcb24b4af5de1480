"""Rank files: against tiktoken, the special tokens and chats of GLM-4, and what is refused."""

import base64
import itertools
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_core import TokenizerError
from mlx_core.text import load_tokenizer
from mlx_core.text.tiktoken import is_rank_file, rank_backend, read_ranks
from mlx_core.text.vocabulary import PRE_TOKENIZERS

pytestmark = pytest.mark.text

GOLDENS = Path(__file__).parent / "goldens" / "tokenizer_files"
RECORDED = json.loads((GOLDENS / "tiktoken.json").read_text(encoding="utf-8"))
SMALL = (GOLDENS / "small.tiktoken").read_bytes()
TEMPLATE = (GOLDENS / "templates" / "glm-4.6.jinja").read_text(encoding="utf-8")
CLASSES = {"glm4": "ChatGLM4Tokenizer", "qwen": "QWenTokenizer"}
GLM4 = [
    *("<|endoftext|>", "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>", "<|system|>", "<|user|>", "<|assistant|>"),
    *("<|observation|>", "<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>"),
]


def folder_of(path, data=SMALL, name="tokenizer.model", **files):
    (path / name).write_bytes(data)
    for file, entries in files.items():
        (path / f"{file}.json").write_text(json.dumps(entries), encoding="utf-8")
    return path


def streamed(t, ids):
    stream = t.detokenizer(skip_special_tokens=False)
    return "".join([*map(stream.add, ids), stream.flush()])


def line(token, rank):
    return base64.b64encode(token) + f" {rank}\n".encode()


BYTES = b"".join(line(bytes([byte]), byte) for byte in range(256))


# --- Ids and texts


@pytest.mark.parametrize("family", CLASSES)
def test_texts_become_the_ids_that_tiktoken_finds(tmp_path, family):
    t = load_tokenizer(folder_of(tmp_path, tokenizer_config={"tokenizer_class": CLASSES[family]}))
    for text, ids in zip(RECORDED["texts"], RECORDED["ids"][family], strict=True):
        assert t.encode(text, add_special_tokens=False) == ids, text
        assert streamed(t, ids) == t.decode(ids)
        if family == "glm4":  # Qwen's are normalised first
            assert t.decode(ids) == text


@pytest.mark.parametrize("family", CLASSES)
def test_a_word_that_is_a_token_stays_whole(tmp_path, family):
    data = BYTES + line(b"abc", 256)  # nothing joins to it
    t = load_tokenizer(folder_of(tmp_path, data, tokenizer_config={"tokenizer_class": CLASSES[family]}))
    assert t.encode("abc abc", add_special_tokens=False) == [256, *b" abc"]


def joined(ranks, word):
    """Tiktoken's rule: join the neighbours of the lowest rank, leftmost first."""
    parts = [word[i : i + 1] for i in range(len(word))]
    while len(parts) > 1 and word not in ranks:
        pairs = [(ranks.get(left + right), i) for i, (left, right) in enumerate(itertools.pairwise(parts))]
        best = min((pair for pair in pairs if pair[0] is not None), default=None)
        if best is None:
            break
        parts[best[1] : best[1] + 2] = [parts[best[1]] + parts[best[1] + 1]]
    return [ranks[word]] if word in ranks else [ranks[part] for part in parts]


@given(
    merges=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=25),
    text=st.text(alphabet="abc", min_size=1, max_size=40),
)
def test_ranks_are_followed_as_tiktoken_follows_them(merges, text):
    tokens = [b"a", b"b", b"c"]
    for left, right in merges:  # each made of two that are there already, as in training
        token = tokens[left % len(tokens)] + tokens[right % len(tokens)]
        # Training makes a token only where these two stand beside each other, not where they'd have been joined before.
        if token not in tokens and len(joined({t: i for i, t in enumerate(tokens)}, token)) == 2:
            tokens.append(token)
    ranks = {bytes([byte]): byte for byte in range(256)}
    ranks |= {token: 256 + i for i, token in enumerate(tokens[3:])}
    assert rank_backend(ranks, PRE_TOKENIZERS["glm4"]).encode(text).ids == joined(ranks, text.encode())


# --- What goes with the ranks


def test_glm4s_special_tokens_follow_its_ranks(tmp_path):
    t = load_tokenizer(folder_of(tmp_path, config={"model_type": "chatglm"}))
    assert [t.token(460 + i) for i in range(len(GLM4))] == GLM4
    assert t.vocab_size == 474
    assert (t.bos_token_id, t.eos_token_id, t.pad_token_id) == (None, 460, 460)
    assert t.encode("a<|user|>") == [462, 464, *t.encode("a", add_special_tokens=False), 467]
    assert t.decode(t.encode("a<|user|>"), skip_special_tokens=True) == "a"


def test_the_config_may_name_more_special_tokens(tmp_path):
    added = {str(460 + i): {"content": token, "special": True} for i, token in enumerate([*GLM4, "<think>"])}
    config = {"tokenizer_class": "ChatGLM4Tokenizer", "added_tokens_decoder": added, "chat_template": TEMPLATE}
    t = load_tokenizer(
        folder_of(tmp_path, tokenizer_config=config, generation_config={"eos_token_id": [460, 467, 469]})
    )
    assert t.encode("<think>", add_special_tokens=False) == [474]
    assert t.eos_token_ids == (460, 467, 469)


def glm_config(n_ranks):
    """As the released tokenizer_config.json of GLM-4.5, but for its last tokens."""
    named = [
        *GLM4,
        *("<|begin_of_audio|>", "<|end_of_audio|>", "<|begin_of_transcription|>", "<|end_of_transcription|>"),
        *("<|code_prefix|>", "<|code_middle|>", "<|code_suffix|>", "<think>", "</think>"),
    ]
    added = {str(n_ranks + i): {"content": token, "special": i < 21} for i, token in enumerate(named)}
    return {"tokenizer_class": "ChatGLM4Tokenizer", "added_tokens_decoder": added, "chat_template": TEMPLATE}


def check_template(t, n_ranks):
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    chat += [{"role": "assistant", "content": "<think>hm</think>Yes"}, {"role": "user", "content": "ok"}]
    text = "[gMASK]<sop><|system|>\nBe brief.<|user|>\nHi<|assistant|>\n<think></think>\nYes<|user|>\nok<|assistant|>"
    assert t.apply_chat_template(chat) == text
    ids = t.encode_chat(chat)
    assert [i - n_ranks for i in ids if i >= n_ranks] == [2, 4, 6, 7, 8, 21, 22, 7, 8]
    assert t.decode(ids) == text
    assert t.decode(ids, skip_special_tokens=True) == "\nBe brief.\nHi\n<think></think>\nYes\nok"


def test_glms_template_gives_single_tokens(tmp_path):
    check_template(load_tokenizer(folder_of(tmp_path, tokenizer_config=glm_config(460))), 460)


def test_a_config_of_other_special_tokens_is_refused(tmp_path):
    config = {"tokenizer_class": "ChatGLM4Tokenizer", "added_tokens_decoder": {"500": {"content": "<far>"}}}
    with pytest.raises(TokenizerError, match="'<far>' is token 500"):
        load_tokenizer(folder_of(tmp_path, tokenizer_config=config))
    with pytest.raises(TokenizerError, match=r"tokenizer\.model"):
        load_tokenizer(folder_of(tmp_path, tokenizer_config=config | {"added_tokens_decoder": ["<far>"]}))


def test_qwens_special_tokens_follow_its_ranks(tmp_path):
    t = load_tokenizer(folder_of(tmp_path, name="qwen.tiktoken"))
    assert [t.token(460 + i) for i in range(4)] == ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|extra_0|>"]
    assert (t.token(667), t.vocab_size, t.eos_token_id) == ("<|extra_204|>", 668, 460)
    assert t.encode("<|im_start|>") == [461]


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("tokenizer.model", {"tokenizer_config": {"tokenizer_class": "ChatGLM4Tokenizer"}}),
        ("tokenizer.model", {"config": {"model_type": "glm4_moe"}}),
        ("tokenizer.model", {"tokenizer_config": {"tokenizer_class": "Mine"}, "config": {"model_type": "glm4"}}),
        ("glm4.tiktoken", {}),
    ],
)
def test_the_family_is_known_by_one_of_three_names(tmp_path, name, files):
    assert load_tokenizer(folder_of(tmp_path, name=name, **files)).token(462) == "[gMASK]"


def test_an_unknown_family_is_refused(tmp_path):
    files = {"tokenizer_config": {"tokenizer_class": "Mine"}, "config": {"model_type": "other"}}
    with pytest.raises(TokenizerError, match=r"none of 'Mine', 'other', 'tokenizer' is known to.*ChatGLM4Tokenizer"):
        load_tokenizer(folder_of(tmp_path, **files))


def test_two_rank_files_are_too_many(tmp_path):
    folder_of(tmp_path, name="a.tiktoken")
    with pytest.raises(TokenizerError, match=r"has a\.tiktoken, b\.tiktoken but no tokenizer\.json"):
        load_tokenizer(folder_of(tmp_path, name="b.tiktoken"))


def test_what_is_saved_is_a_tokenizer_json_with_the_same_ids(tmp_path):
    files = {"tokenizer_config": {"tokenizer_class": "ChatGLM4Tokenizer", "chat_template": TEMPLATE}}
    t = load_tokenizer(folder_of(tmp_path, **files))
    t.save(tmp_path / "saved")
    saved = load_tokenizer(tmp_path / "saved")
    for text in [*RECORDED["texts"], "[gMASK]<sop><|user|>\na<|assistant|>"]:
        assert saved.encode(text) == t.encode(text)
    assert (saved.eos_token_ids, saved.vocab_size, saved.chat_template) == (t.eos_token_ids, 474, TEMPLATE)
    config = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"  # the checkpoint's own class is in no library


# --- Damaged files


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (BYTES + b"YWI 256\n", "line 257 is b'YWI 256' (Incorrect padding)"),
        (BYTES + b"YWI= abc\n", "line 257 is b'YWI= abc' (expected base64, a space and a number)"),
        (BYTES + b"YWI= -1\n", "line 257"),
        (BYTES + b"YWI= 99999999\n", "line 257"),
        (BYTES + b"YWI=\n", "line 257"),
        (BYTES + b" 256\n", "line 257"),
        (BYTES + b"\xff\n", "line 257"),
        (BYTES + line(b"a", 256), "line 257 has the token b'a' for a second time"),
        (BYTES + line(b"ab", 257), "its 257 tokens have to have the ranks 0 to 256, each once"),
        (BYTES + line(b"ab", 255), "its 257 tokens have to have the ranks 0 to 256, each once"),
        (BYTES[: -len(line(b"\xff", 255))], "1 of the 256 bytes are no tokens, the first of them 255"),
    ],
)
def test_a_damaged_rank_file_is_refused(tmp_path, data, reason):
    with pytest.raises(TokenizerError) as raised:
        load_tokenizer(folder_of(tmp_path, data, name="glm4.tiktoken"))
    assert reason in str(raised.value)
    assert "get the file again" in str(raised.value)


def test_a_token_of_any_length_is_not_read(tmp_path):
    with pytest.raises(TokenizerError, match="a piece of 2,000 characters"):
        load_tokenizer(folder_of(tmp_path, BYTES + line(b"x" * 2000, 256), name="glm4.tiktoken"))


def test_lines_may_end_in_either_way():
    assert read_ranks(BYTES.replace(b"\n", b"\r\n") + b"\n\n") == {bytes([byte]): byte for byte in range(256)}


@given(data=st.binary())
def test_no_model_looks_like_a_rank_file(data):
    assert is_rank_file(SMALL)
    assert not is_rank_file(b"\n" + data)  # as every SentencePiece model begins


# --- GLM-4's own


def glm4(tmp_path, **files):
    path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlx-core" / "glm4.tiktoken"
    if not path.is_file():
        pytest.skip(f"{path} isn't there: scripts/fetch_tokenizers.py fetches it")
    return load_tokenizer(folder_of(tmp_path, path.read_bytes(), **files))


@pytest.mark.weights
def test_glm4s_own_vocabulary(tmp_path):
    t = glm4(tmp_path, config={"model_type": "chatglm", "eos_token_id": [151329, 151336, 151338]})
    recorded = json.loads((GOLDENS / "glm4.json").read_text(encoding="utf-8"))
    for text, ids in zip(recorded["texts"], recorded["ids"], strict=True):
        assert t.encode(text) == [151331, 151333, *ids]
        assert t.decode(ids) == streamed(t, ids) == text
    assert t.eos_token_ids == (151329, 151336, 151338)
    roles = ["<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"]
    assert list(map(t.token_id, roles)) == [151335, 151336, 151337, 151338]


@pytest.mark.weights
def test_glm4s_own_chats(tmp_path):
    check_template(glm4(tmp_path, tokenizer_config=glm_config(151329)), 151329)
