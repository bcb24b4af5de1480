"""The law of streams: the pieces, joined, are the decoded text; they come early; and a token costs the same
anywhere.
"""

import itertools
import json
import random
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, decoders, models
from tokenizers.decoders import CTC, BPEDecoder, ByteFallback, ByteLevel, Fuse, Metaspace, Replace, Strip, WordPiece

from mlx_core import TokenizerError
from mlx_core.text.detokenizer import Decoding, StreamingDetokenizer
from mlx_core.text.tokenizer import Tokenizer, from_gguf_metadata

pytestmark = pytest.mark.text

GOLDENS = Path(__file__).parent / "goldens" / "tokenizer"
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def word_level(tokens, decoder, special=("<s>",)):
    """A vocabulary of just these tokens, with gaps between their ids."""
    backend = tokenizers.Tokenizer(models.WordLevel({token: 3 * i for i, token in enumerate(tokens)}, unk_token="?"))
    if decoder is not None:
        backend.decoder = decoder
    backend.add_special_tokens(list(special))
    return Tokenizer(backend)


# GPT-2's alphabet: byte -> character.
SHOWN = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
HIDDEN = [byte for byte in range(256) if byte not in SHOWN]
ALPHABET = {byte: chr(byte) for byte in SHOWN} | {byte: chr(256 + i) for i, byte in enumerate(HIDDEN)}


def byte_level():
    """GPT-2's bytes at ids 3 * byte, words, tokens in plain text, U+FFFD as a token's own text, special tokens."""
    words = ["Ġthe", "ĠĠ", "ĊĊ", "ðŁĺ", "Ģ!", "ï¿½", "âĤ¬", "\ufffd", "😀", "", "plain text", "<|user|>"]
    special = ["<s>", "<|end|>"]
    return word_level([ALPHABET[byte] for byte in range(256)] + words + special, ByteLevel(), special)


def byte_fallback(prefix=True):
    """A SentencePiece vocabulary as GGUF has it."""
    pieces = ["<unk>", "<s>", "</s>", *BYTES, "▁", "a", "b", "▁a", "ab", "▁▁", "é", "�", "<tool>"]
    types = [2, 3, 3] + [6] * 256 + [1] * 8 + [4]
    return from_gguf_metadata(
        {
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.tokens": pieces,
            "tokenizer.ggml.token_type": types,
            "tokenizer.ggml.scores": [-float(i) for i in range(len(pieces))],
            "tokenizer.ggml.add_space_prefix": prefix,
        }
    )


SENTENCEPIECE = (Replace("▁", " "), ByteFallback(), Fuse())
DECODERS = {
    "none": None,
    "byte level": ByteLevel(),
    "nested byte level": decoders.Sequence([decoders.Sequence([ByteLevel()])]),
    "fused byte level": decoders.Sequence([Fuse(), ByteLevel()]),
    "byte fallback": ByteFallback(),
    "fuse": Fuse(),
    "metaspace": Metaspace(),
    "metaspace never": Metaspace(prepend_scheme="never"),
    "wordpiece": WordPiece(),
    "wordpiece raw": WordPiece(cleanup=False),
    "bpe suffix": BPEDecoder(),
    "ctc": CTC(),
    "gemma": decoders.Sequence([*SENTENCEPIECE]),
    "llama": decoders.Sequence([*SENTENCEPIECE, Strip(" ", 1, 0)]),
    "strips three": decoders.Sequence([*SENTENCEPIECE, Strip(" ", 3, 0)]),
    "strips its sentinel": decoders.Sequence([*SENTENCEPIECE, Strip("a", 2, 0)]),
    "replaces when fused": decoders.Sequence([*SENTENCEPIECE, Replace("ab", "c")]),
    "bytes then metaspace": decoders.Sequence([ByteFallback(), Metaspace()]),
    "bytes then metaspace, stripped": decoders.Sequence([ByteFallback(), Metaspace(), Fuse(), Strip("b", 2, 0)]),
    "strip each": decoders.Sequence([Strip("▁", 1, 0), ByteFallback()]),
    "makes bytes between": decoders.Sequence(
        [ByteFallback(), Replace("x", "<0xA9>"), Replace("q", "<0xC3>"), ByteFallback(), Fuse()]
    ),
    "strips many": decoders.Sequence([*SENTENCEPIECE, Strip(" ", 100_000, 0)]),
    "two byte fallbacks": decoders.Sequence([ByteFallback(), ByteFallback()]),
    "makes bytes": decoders.Sequence([Replace("q", "<0xE2>"), ByteFallback(), Fuse()]),
    "makes bytes by expression": decoders.Sequence([Replace(Regex("^x|q$"), "<0x41>"), ByteFallback(), Fuse()]),
    "hides a byte": decoders.Sequence([Replace("<0x41>", "A"), ByteFallback(), Fuse()]),
    "changes its sentinel": decoders.Sequence([Replace("a", "zz"), Fuse()]),
    "empty": decoders.Sequence([]),
}
WORDS = "? a b ▁ ▁▁ ▁a a▁ ##b q x . ▁. n't </w> a</w> | <pad> <s> zz _ Ġ é â Ĥ ¬ ð Ł ĺ Ģ 😀 \ufffd"
SOME_BYTES = "<0x41> <0xE2> <0x82> <0xAC> <0xFF> <0x20> <0x+F> <0xé> <0x00>"
TOKENS = [*WORDS.split(), *SOME_BYTES.split(), "", " ", "  ", "\x00"]
STREAMS = {name: word_level(TOKENS, decoder, ["<s>", "<pad>"]) for name, decoder in DECODERS.items()}
STREAMS["strips the end"] = word_level(TOKENS, decoders.Sequence([Fuse(), Strip("b", 0, 1)]))
STREAMS |= {"gpt-2": byte_level(), "sentencepiece": byte_fallback(), "sentencepiece unprefixed": byte_fallback(False)}


def streamed(tokenizer, ids, skip=False):
    stream = tokenizer.detokenizer(skip_special_tokens=skip)
    return [*(stream.add(i) for i in ids), stream.flush()]


@pytest.mark.parametrize(
    "name", [name for name in STREAMS if name != "strips the end"]
)  # the library fails on a short text
@given(data=st.data(), skip=st.booleans())
def test_the_pieces_join_to_the_decoded_text(name, data, skip):
    tokenizer = STREAMS[name]
    known = [i for i in range(tokenizer.vocab_size) if tokenizer.token(i) is not None]
    # A few tokens of the vocabulary at a time, so that they meet; an id in its gaps and one beyond it too.
    some = data.draw(st.lists(st.sampled_from([*known, 1, 2**32 + 7]), min_size=1, max_size=5))
    ids = data.draw(st.lists(st.sampled_from(some), max_size=12))
    assert "".join(streamed(tokenizer, ids, skip)) == tokenizer.decode(ids, skip_special_tokens=skip)


def common_start(texts):
    return "".join(letters[0] for letters in itertools.takewhile(lambda t: len(set(t)) == 1, zip(*texts, strict=False)))


# Enough to finish any character, or to spoil it.
FUTURES = [bytes(more) for n in range(4) for more in itertools.product((0x41, 0x80, 0x90, 0xA0), repeat=n)]


@given(data=st.binary(max_size=5) | st.text(max_size=2).map(str.encode))
def test_bytes_are_read_as_early_as_can_be(data):
    tokenizer = STREAMS["gpt-2"]
    stream = tokenizer.detokenizer()
    for end in range(1, len(data) + 1):
        stream.add(3 * data[end - 1])
        possible = [tokenizer.decode([3 * byte for byte in data[:end] + more]) for more in FUTURES]
        assert stream.text == common_start(possible)


@given(st.lists(st.sampled_from(["a", "▁", "é", "<s>", "<0x41>", "<0xC3> <0xA9>", "<0x20>"]), max_size=6))
def test_byte_fallback_is_read_as_early_as_can_be(units):
    tokenizer = STREAMS["sentencepiece"]
    ids = [tokenizer.token_id(token) for unit in units for token in unit.split()]
    futures = [[]] + [[tokenizer.token_id(token)] for token in ("a", "<0xFF>", "<0xA9>")]
    stream = tokenizer.detokenizer()
    for end in range(1, len(ids) + 1):
        stream.add(ids[end - 1])
        possible = [tokenizer.decode(ids[:end] + more, skip_special_tokens=True) for more in futures]
        assert stream.text == common_start(possible)


@pytest.mark.parametrize(
    ("name", "tokens", "pieces"),
    [
        ("gpt-2", ["ðŁĺ", "Ģ!"], ["", "😀!", ""]),  # an emoji split between tokens
        ("gpt-2", ["ð", "Ł", "a"], ["", "", "\ufffda", ""]),  # and one that is broken off
        ("gpt-2", ["ð", "Ł"], ["", "", "\ufffd"]),
        ("gpt-2", ["í", "ł", "Ģ"], ["", "\ufffd\ufffd", "\ufffd", ""]),  # half of a surrogate pair
        ("gpt-2", ["ÿ", "Ġthe"], ["\ufffd", " the", ""]),
        ("gpt-2", ["Ā", "a"], ["\x00", "a", ""]),  # NUL
        ("gpt-2", ["ï¿½", "\ufffd", "😀", "plain text"], ["\ufffd", "\ufffd", "😀", "plain text", ""]),
        ("gpt-2", ["Ġthe", "<s>", "Ġthe"], [" the", "<s>", " the", ""]),
        ("sentencepiece", ["▁a", "▁a"], ["a", " a", ""]),  # only the text's first space goes
        ("sentencepiece", ["▁", "▁", "a"], ["", " ", "a", ""]),
        ("sentencepiece unprefixed", ["▁a", "▁a"], [" a", " a", ""]),
        ("sentencepiece", ["a", "<0xC3>", "<0xA9>", "a"], ["a", "", "", "éa", ""]),
        ("sentencepiece", ["a", "<0xC3>", "<0xA9>", "<0xFF>", "a"], ["a", "", "", "", "\ufffd\ufffd\ufffda", ""]),
        ("sentencepiece", ["<0x20>", "<0x00>", "é"], ["", "", "\x00é", ""]),
        ("sentencepiece", ["�", "<tool>", "</s>"], ["\ufffd", "<tool>", "</s>", ""]),
        ("llama", ["<0x20>", "", "<0xFF>", "a"], ["", "", "", "\ufffda", ""]),  # a run ends at a token without text
        ("llama", ["<0x20>", "", "▁"], ["", "", " ", ""]),
        ("metaspace", ["", "▁a"], ["", " a", ""]),
        ("hides a byte", ["<0xFF>", "<0x00>"], ["", "", "\ufffd\ufffd"]),
        ("replaces when fused", ["a", "b"], ["", "", "c"]),
        ("makes bytes between", ["q", "x"], ["", "", "é"]),
        ("strips the end", ["a", "b", "b"], ["", "", "", "ab"]),
        ("wordpiece", ["a", "##b", "."], ["a", "b", ".", ""]),
        ("bpe suffix", ["a</w>", "b"], ["", "", "a b"]),  # a decoder that isn't streamed
    ],
)
def test_pieces(name, tokens, pieces):
    tokenizer = STREAMS[name]
    ids = [tokenizer.token_id(token) for token in tokens]
    assert None not in ids
    assert streamed(tokenizer, ids) == pieces


def test_special_tokens_can_be_skipped_and_unknown_ids_have_no_text():
    tokenizer = STREAMS["gpt-2"]
    space_the, end = tokenizer.token_id("Ġthe"), tokenizer.token_id("<|end|>")
    assert streamed(tokenizer, [end, space_the, 1, 2**31, 2**40, end], skip=True) == ["", " the", "", "", "", "", ""]


@pytest.mark.parametrize(
    ("name", "token"),
    [
        ("gpt-2", "a"),
        ("gpt-2", "ÿ"),
        ("gpt-2", ""),
        *itertools.product(["gemma", "sentencepiece"], ["a", "<0xFF>", "<0x20>"]),
        ("strips many", "▁"),
        *itertools.product(["gemma", "metaspace", "wordpiece", "none", "strips three"], ["", "▁", "<0x41>"]),
    ],
)
def test_a_token_costs_the_same_however_long_the_text_is(name, token, monkeypatch):
    tokenizer = STREAMS[name]
    index = tokenizer.token_id(token)
    decoded = []
    original = Decoding.decode
    monkeypatch.setattr(Decoding, "decode", lambda self, tokens: decoded.append(len(tokens)) or original(self, tokens))
    ids = [index] * 10_000
    pieces = streamed(tokenizer, ids)
    assert "".join(pieces) == tokenizer.decode(ids)
    assert sum(decoded) <= 2 * len(ids) + 100


def test_a_stream_ends_with_flush_and_starts_again_with_reset():
    tokenizer = STREAMS["gpt-2"]
    stream = tokenizer.detokenizer()
    assert stream.add(3 * 0xF0) == ""
    assert stream.text == ""
    assert stream.flush() == "\ufffd"
    assert stream.flush() == ""
    assert stream.text == "\ufffd"
    held = STREAMS["bpe suffix"].detokenizer()
    held.add(3)
    assert (held.flush(), held.flush()) == ("a", "")
    with pytest.raises(TokenizerError, match="reset"):
        stream.add(3 * 0x41)
    stream.reset()
    assert (stream.text, stream.add(3 * 0x41), stream.text) == ("", "A", "A")


def test_streams_of_one_tokenizer_do_not_meet():
    tokenizer = STREAMS["sentencepiece"]
    one, other = tokenizer.detokenizer(), tokenizer.detokenizer()
    for token in ["<0xC3>", "<0xA9>"]:
        assert one.add(tokenizer.token_id(token)) == ""
        assert other.add(tokenizer.token_id("▁a")) in ("a", " a")
    assert (one.flush(), other.flush()) == ("é", "")


@pytest.mark.parametrize("token", [np.int64(0x41 * 3), np.array(0x41 * 3), mx.array(0x41 * 3), True])
def test_ids_may_be_of_any_integer_type(token):
    stream = STREAMS["gpt-2"].detokenizer()
    assert isinstance(stream, StreamingDetokenizer)
    assert stream.add(token) == ("" if token is True else "A")


@pytest.mark.parametrize("token", [-1, np.int32(-5), 1.0, "1", None, np.array([1, 2]), mx.array([1, 2])])
def test_what_is_no_id_is_refused(token):
    stream = STREAMS["gpt-2"].detokenizer()
    with pytest.raises(TokenizerError, match="token id must be"):
        stream.add(token)
    assert stream.flush() == ""


def test_utf8_is_read_as_the_library_reads_it():
    library = ByteLevel()
    edges = (
        0x00,
        0x41,
        0x7F,
        0x80,
        0x8F,
        0x90,
        0x9F,
        0xA0,
        0xBF,
        0xC1,
        0xC2,
        0xDF,
        0xE0,
        0xE1,
        0xED,
        0xEF,
        0xF0,
        0xF1,
        0xF4,
    )
    decoding = STREAMS["gpt-2"]._decoding
    for data in itertools.chain(*(itertools.product((*edges, 0xF5, 0xFF), repeat=n) for n in (1, 2, 3))):
        reader = decoding.reader()
        pieces = [reader.add(ALPHABET[byte]) for byte in data]
        assert "".join(pieces) + reader.finish() == library.decode(["".join(ALPHABET[byte] for byte in data)])


def test_long_texts_of_a_real_size_vocabulary():
    golden = json.loads((GOLDENS / "sentencepiece.json").read_text(encoding="utf-8"))
    tokenizer = from_gguf_metadata(
        {f"tokenizer.ggml.{key}": golden[name] for key, name in (("tokens", "pieces"), ("token_type", "types"))}
        | {"tokenizer.ggml.model": "llama", "tokenizer.ggml.scores": golden["scores"]}
    )
    generator = random.Random(0)
    for _ in range(20):
        ids = [generator.randrange(tokenizer.vocab_size) for _ in range(500)]
        assert "".join(streamed(tokenizer, ids)) == tokenizer.decode(ids)
