"""Tokenizers: from tokenizer.json, tokenizer.model, rank files or GGUF vocabularies, with chat templates and streaming.

    tokenizer = load_tokenizer("path/to/checkpoint")        # a folder, a .gguf file or a hub id
    ids = tokenizer.encode_chat([{"role": "user", "content": "Hello"}])

Encoding and decoding are the tokenizers library's. A checkpoint's other files (special tokens, end-of-sequence tokens,
chat templates) are read as transformers reads them.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers
from tokenizers import AddedToken

from ..errors import TokenizerError
from .chat_template import Message, Tool, choose_template, render_chat
from .detokenizer import ID_LIMIT, Decoding, StreamingDetokenizer, checked_id, checked_ids, library_errors
from .expansion import check_expansion
from .sentencepiece import add_special_pieces, read_sentencepiece_model, sentencepiece_backend
from .tiktoken import RankFamily, is_rank_file, rank_backend, rank_family, read_ranks
from .vocabulary import read_gguf_vocabulary, set_end_tokens

__all__ = ["StreamingDetokenizer", "Tokenizer", "from_gguf_metadata", "load_tokenizer"]

_MAX_TOKENIZER_BYTES = 2**28  # the largest in use, with 262,000 tokens and half a million merges, has 33 MB
_MAX_MODEL_BYTES = 2**24  # tokenizer.model and rank files; Gemma 3's has 5 MB
_MAX_CONFIG_BYTES = 2**24  # tokenizer_config.json may repeat every added token
_MAX_ID = 2**31 - 1  # of a token: arrays of them are int32


class Tokenizer:
    """Encodes and decodes text, and renders chats, for one vocabulary. Made by `load_tokenizer`; immutable.

    `special_tokens`: the strings of bos_token, eos_token and so on, by those names; chat templates read them too.
    `eos_token_ids`: further tokens that end an answer, beside eos_token. `chat_templates`: Jinja sources by name.
    `config`: the entries of tokenizer_config.json, kept for `save`. Raises TokenizerError for a vocabulary that would
    make texts thousands of times as long (`expansion`).
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        special_tokens: Mapping[str, str] | None = None,
        eos_token_ids: Iterable[int] = (),
        chat_templates: Mapping[str, str] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        backend.no_truncation()  # some files have the settings that their tokenizer was trained with
        backend.no_padding()
        check_expansion(backend)
        self._backend = backend
        self._decoding = Decoding(backend)
        self._special_tokens = dict(special_tokens or {})
        self._chat_templates = dict(chat_templates or {})
        self._config = dict(config or {})
        eos = self._special_id("eos_token")
        self.eos_token_ids: tuple[int, ...] = tuple(dict.fromkeys([*([] if eos is None else [eos]), *eos_token_ids]))

    def __repr__(self) -> str:
        return f"Tokenizer(vocab_size={self.vocab_size}, eos_token_ids={self.eos_token_ids})"

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """The text's token ids. Special tokens in the text are recognised. With `add_special_tokens`, those that the
        vocabulary puts around a text are added, such as a beginning-of-sequence token.

        Raises TokenizerError for anything but a string, and for one that can't be written in UTF-8.
        """
        if not isinstance(text, str):
            raise TokenizerError(f"encode takes a string, found {type(text).__name__}; a chat goes to encode_chat")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise TokenizerError(
                f"the text has half a surrogate pair at index {error.start}: decode it with the right encoding, "
                'or drop such halves by text.encode("utf-8", "ignore").decode()'
            ) from None
        with library_errors("encode this text"):
            return self._backend.encode(text, add_special_tokens=add_special_tokens).ids

    def decode(self, ids: Iterable[int] | Any, *, skip_special_tokens: bool = False) -> str:
        """The text of `ids`: integers, a NumPy array or an mx.array of one dimension.

        Ids outside the vocabulary have no text. Bytes that aren't valid UTF-8 become U+FFFD. Raises TokenizerError for
        negative ids and for anything but a sequence of integers.
        """
        known = [index for index in checked_ids(ids) if index < ID_LIMIT]
        with library_errors("decode these tokens"):
            return self._backend.decode(known, skip_special_tokens=skip_special_tokens)

    def apply_chat_template(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] | None = None,
        add_generation_prompt: bool = True,
        template: str | None = None,
        **variables: Any,
    ) -> str:
        """The prompt that the checkpoint's chat template gives for `messages`, to be encoded without special tokens.

        `tools`: JSON schemas of functions that the model may call; `template`: another Jinja template, or the name of
        one of the checkpoint's; `variables`: anything else that the template reads, such as enable_thinking.
        Raises TokenizerError, see `chat_template.render_chat` and `choose_template`.
        """
        source = choose_template(self._chat_templates, template, tools=bool(tools))
        return render_chat(
            source,
            messages,
            tools=tools,
            add_generation_prompt=add_generation_prompt,
            **{**self._special_tokens, **variables},
        )

    def encode_chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] | None = None,
        add_generation_prompt: bool = True,
        template: str | None = None,
        **variables: Any,
    ) -> list[int]:
        """The token ids of `apply_chat_template`'s prompt, whose special tokens the template has written."""
        text = self.apply_chat_template(
            messages, tools=tools, add_generation_prompt=add_generation_prompt, template=template, **variables
        )
        return self.encode(text, add_special_tokens=False)

    @property
    def has_chat_template(self) -> bool:
        return bool(self._chat_templates)

    @property
    def chat_template(self) -> str | None:
        """The default chat template, or the only one."""
        if len(self._chat_templates) == 1:
            return next(iter(self._chat_templates.values()))
        return self._chat_templates.get("default")

    def template_source(self, *, tools: bool = False) -> str | None:
        """The chat template for a chat with tools, or without; None if the checkpoint has none."""
        return choose_template(self._chat_templates, None, tools=tools) if self._chat_templates else None

    @property
    def bos_token_id(self) -> int | None:
        return self._special_id("bos_token")

    @property
    def eos_token_id(self) -> int | None:
        """The first of `eos_token_ids`."""
        return next(iter(self.eos_token_ids), None)

    @property
    def pad_token_id(self) -> int | None:
        return self._special_id("pad_token")

    @cached_property
    def vocab_size(self) -> int:
        """One more than the largest id, added tokens included; some ids below it may be unused.

        Raises TokenizerError for a vocabulary with ids that no int32 array holds.
        """
        largest = max(self._backend.get_vocab(with_added_tokens=True).values(), default=-1)
        if largest > _MAX_ID:
            raise TokenizerError(f"the vocabulary has a token of id {largest}, beyond {_MAX_ID}: its file is damaged")
        return largest + 1

    def token(self, token_id: int) -> str | None:
        """The token's string as the vocabulary writes it ("Ġthe", "<0x0A>"), or None for an id outside it."""
        return self._decoding.token(checked_id(token_id))

    def token_id(self, token: str) -> int | None:
        """The id of a token by its string, or None."""
        return self._backend.token_to_id(token)

    def detokenizer(self, skip_special_tokens: bool = True, *, shown: Iterable[str] = ()) -> StreamingDetokenizer:
        """A streaming detokenizer; `shown`: special tokens that it doesn't skip."""
        return StreamingDetokenizer(self._decoding, skip_special_tokens=skip_special_tokens, shown=shown)

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json and tokenizer_config.json, which `load_tokenizer` and transformers' AutoTokenizer read.

        The folder is made if need be. Both files are complete before either replaces an older one. Raises
        TokenizerError if they can't be written.
        """
        templates: str | list[dict[str, str]] | None = self._chat_templates.get("default")
        if set(self._chat_templates) - {"default"}:
            templates = [{"name": name, "template": source} for name, source in self._chat_templates.items()]
        config = {
            **self._config,
            **self._special_tokens,
            "eos_token_ids": list(self.eos_token_ids),  # ours: transformers has them in generation_config.json
            "tokenizer_class": self._config.get("tokenizer_class", "PreTrainedTokenizerFast"),
        }
        if templates is not None:
            config["chat_template"] = templates
        if config.pop("auto_map", None) is not None:  # names Python files, which nothing here copies or runs
            config["tokenizer_class"] = "PreTrainedTokenizerFast"
        texts = {
            "tokenizer.json": self._backend.to_str(),
            "tokenizer_config.json": json.dumps(config, indent=2) + "\n",
        }
        folder = Path(folder).expanduser()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".tokenizer-", dir=folder) as staging:
                for name, text in texts.items():
                    (Path(staging) / name).write_text(text, encoding="utf-8")
                for name in texts:
                    (Path(staging) / name).replace(folder / name)
        except OSError as error:
            raise TokenizerError(f"the tokenizer can't be saved in {folder}: {error}") from error

    def _special_id(self, name: str) -> int | None:
        token = self._special_tokens.get(name)
        return None if token is None else self._backend.token_to_id(token)


def load_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer of a checkpoint: a folder, a .gguf file, or the id of a model on the hub.

    A folder has a tokenizer.json, else a tokenizer.model (of SentencePiece, or GLM-4's ranks), else a *.tiktoken
    file. Also read, if they are there: tokenizer_config.json, special_tokens_map.json, generation_config.json,
    config.json and the chat templates. Raises TokenizerError for files that are missing, damaged or of an unknown kind,
    and what `checkpoints.resolve` and the GGUF reader raise.
    """
    local = Path(path).expanduser()
    if not local.exists():
        from ..checkpoints.hub import resolve

        local = resolve(path)
    if local.is_dir():
        return _from_folder(local)
    if local.suffix == ".gguf":
        return _from_gguf(local)
    raise TokenizerError(
        f"{local} is neither a folder nor a .gguf file: give the folder that holds the tokenizer's files"
    )


def from_gguf_metadata(metadata: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer in a GGUF file's metadata: a mapping of GGUF's keys to Python values. Raises TokenizerError."""
    vocabulary = read_gguf_vocabulary(metadata)
    return Tokenizer(
        vocabulary.backend,
        special_tokens=vocabulary.special_tokens,
        eos_token_ids=vocabulary.eos_token_ids,
        chat_templates=vocabulary.chat_templates,
    )


def _from_gguf(path: Path) -> Tokenizer:
    from ..checkpoints.gguf import GGUFFile

    return from_gguf_metadata(GGUFFile.open(path).metadata)


def _from_folder(folder: Path) -> Tokenizer:
    stated = _read_json(folder / "tokenizer_config.json")
    found = _read_vocabulary(folder, stated)
    if found is None:
        from ..checkpoints.layout import gguf_in_folder

        ggufs = gguf_in_folder(folder)
        if len(ggufs) == 1:
            return _from_gguf(ggufs[0])
        raise TokenizerError(_missing(folder))
    backend, config, prefix_tokens = found
    special_tokens = (
        _special_tokens(config)
        | _special_tokens(_read_json(folder / "special_tokens_map.json"))
        | _special_tokens(stated)
    )
    with library_errors(f"add what {folder / 'tokenizer_config.json'} says"):
        _add_tokens(backend, config, special_tokens)
        if prefix_tokens:
            set_end_tokens(backend, [index for index in map(backend.token_to_id, prefix_tokens) if index is not None])
        if "add_bos_token" in config or "add_eos_token" in config:
            bos, eos = (
                backend.token_to_id(special_tokens[end]) if config.get(f"add_{end}") and end in special_tokens else None
                for end in ("bos_token", "eos_token")
            )
            set_end_tokens(backend, [] if bos is None else [bos], [] if eos is None else [eos])
    return Tokenizer(
        backend,
        special_tokens=special_tokens,
        eos_token_ids=[
            *_ids(config, "eos_token_ids"),
            *_ids(_read_json(folder / "generation_config.json"), "eos_token_id"),
            *_ids(_read_json(folder / "config.json"), "eos_token_id"),
        ],
        chat_templates=_read_templates(folder, config),
        config=config,
    )


class _Vocabulary(NamedTuple):
    backend: tokenizers.Tokenizer
    config: dict[str, Any]  # tokenizer_config.json, with defaults by the kind of vocabulary
    prefix_tokens: tuple[str, ...] = ()  # that begin every text, apart from bos_token


def _read_vocabulary(folder: Path, config: dict[str, Any]) -> _Vocabulary | None:
    """The vocabulary in tokenizer.json, else tokenizer.model, else the only *.tiktoken file; None if there is none."""
    path = folder / "tokenizer.json"
    if path.is_file():
        data = _read_bytes(path, _MAX_TOKENIZER_BYTES)
        with library_errors(f"read {path}, so get the file again"):
            return _Vocabulary(tokenizers.Tokenizer.from_buffer(data), config)
    ranks = sorted(folder.glob("*.tiktoken"))
    path = folder / "tokenizer.model"
    if not path.is_file() and len(ranks) != 1:
        return None
    path = path if path.is_file() else ranks[0]
    data = _read_bytes(path, _MAX_MODEL_BYTES)
    # `save` writes a tokenizer.json, which the checkpoint's own class wouldn't read.
    stated_class = config.get("tokenizer_class")
    config = config | {"tokenizer_class": "PreTrainedTokenizerFast"}
    try:
        with library_errors(f"use {path} and its tokenizer_config.json"):
            if is_rank_file(data):
                model_type = _read_json(folder / "config.json").get("model_type")
                return _from_ranks(data, config, rank_family([stated_class, model_type, path.stem]))
            return _from_sentencepiece(data, config)
    except TokenizerError as error:
        raise TokenizerError(f"{path} can't be read: {error}") from error


def _from_sentencepiece(data: bytes, config: dict[str, Any]) -> _Vocabulary:
    """A SentencePiece vocabulary with the options of transformers' LlamaTokenizer."""
    model = read_sentencepiece_model(data)
    if config.get("add_prefix_space") is False:
        model = dataclasses.replace(model, add_dummy_prefix=False)
    backend = sentencepiece_backend(model, legacy=config.get("legacy") is not False)
    add_special_pieces(backend, model)
    return _Vocabulary(backend, {**model.special_tokens, "add_bos_token": True, **config})


def _from_ranks(data: bytes, config: dict[str, Any], family: RankFamily) -> _Vocabulary:
    ranks = read_ranks(data)
    implied = family.config(len(ranks))
    added = implied["added_tokens_decoder"] | (config.get("added_tokens_decoder") or {})
    return _Vocabulary(
        rank_backend(ranks, family.pre_tokenizer),
        {**implied, **config, "added_tokens_decoder": added},
        family.prefix_tokens,
    )


def _missing(folder: Path) -> str:
    other = [name for name in ("spiece.model", "vocab.json", "vocab.txt") if (folder / name).exists()]
    other += sorted(path.name for path in folder.glob("*.tiktoken"))
    if not other:
        return (
            f"{folder} has none of tokenizer.json, tokenizer.model and *.tiktoken, and not one .gguf file: "
            "give a folder that holds a checkpoint's tokenizer"
        )
    return (
        f"{folder} has {', '.join(other)} but no tokenizer.json, which is what is read: where transformers is "
        f'installed, make it by AutoTokenizer.from_pretrained("{folder}").save_pretrained("{folder}")'
    )


def _special_tokens(entries: Mapping[str, Any]) -> dict[str, str]:
    """The strings of bos_token, eos_token and so on, by name. Options such as add_bos_token aren't strings."""
    tokens = {name: _content(value) for name, value in entries.items() if name.endswith("_token")}
    return {name: token for name, token in tokens.items() if token}


def _content(value: Any) -> str | None:
    """A token's string, which is given by itself or in a dictionary with the token's options."""
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) else None


def _add_tokens(backend: tokenizers.Tokenizer, config: Mapping[str, Any], special_tokens: Mapping[str, str]) -> None:
    """Add what only tokenizer_config.json says: further tokens, and which tokens of the vocabulary are special."""
    known = backend.get_added_tokens_decoder()
    further = dict(config.get("added_tokens_decoder") or {})
    for index in sorted(set(map(int, further)) - set(known)):
        options = {name: value for name, value in further[str(index)].items() if not name.startswith("__")}
        backend.add_tokens([AddedToken(**options)])
        found = backend.token_to_id(options["content"])
        if found != index:
            raise TokenizerError(
                f"tokenizer_config.json says that {options['content']!r} is token {index}, but in tokenizer.json it comes "
                f"to be {found}: the two files don't belong together"
            )
    more = [config.get(key) or () for key in ("additional_special_tokens", "extra_special_tokens")]
    named = [*special_tokens.values(), *(_content(value) for values in more for value in _values(values))]
    special = {token.content for token in backend.get_added_tokens_decoder().values() if token.special}
    # A token that isn't in the vocabulary would get an id for which the model has no embedding.
    backend.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False)
            for token in dict.fromkeys(named)
            if token and token not in special and backend.token_to_id(token) is not None
        ]
    )


def _values(entries: Any) -> list[Any]:
    return list(entries.values() if isinstance(entries, dict) else entries)


def _ids(entries: Mapping[str, Any], key: str) -> list[int]:
    """The token ids under `key`: none, one or a list of them. A negative id stands for none."""
    value = entries.get(key)
    ids = [] if value is None else value if isinstance(value, list) else [value]
    if any(type(index) is not int for index in ids):
        raise TokenizerError(
            f"{key} must be a token id or a list of them, found {value!r:.80}: correct the checkpoint's file"
        )
    return [index for index in ids if index >= 0]


def _read_templates(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """The chat templates by name: from *.jinja files, else from tokenizer_config.json or chat_template.json."""
    files = {path.stem: path for path in sorted((folder / "additional_chat_templates").glob("*.jinja"))}
    if (folder / "chat_template.jinja").is_file():
        files["default"] = folder / "chat_template.jinja"
    if files:
        return {name: _decoded(_read_bytes(path, _MAX_CONFIG_BYTES), path) for name, path in files.items()}
    found = config.get("chat_template") or _read_json(folder / "chat_template.json").get("chat_template")
    named: list[tuple[Any, Any]] = [("default", found)]
    if found is None or isinstance(found, dict):
        named = list((found or {}).items())
    elif isinstance(found, list):
        named = [(entry.get("name"), entry.get("template")) for entry in found if isinstance(entry, dict)]
    if any(not isinstance(text, str) for pair in named for text in pair):
        raise TokenizerError(
            f"the chat_template of {folder} must be a string, or a list of dictionaries with name and template"
        )
    return dict(named)


def _read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; an empty one if there is no file."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(_decoded(_read_bytes(path, _MAX_CONFIG_BYTES), path))
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"{path} is not valid JSON ({error}): get the file again") from error
    if not isinstance(value, dict):
        raise TokenizerError(f"{path} must hold a JSON object, found {type(value).__name__}: get the file again")
    return value


def _decoded(data: bytes, path: Path) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{path} is not UTF-8 text ({error}): get the file again") from error


def _read_bytes(path: Path, limit: int) -> bytes:
    try:
        size = path.stat().st_size
        if size > limit:
            raise TokenizerError(f"{path} has {size:,} bytes, more than the {limit:,} that such a file can need")
        return path.read_bytes()
    except OSError as error:
        raise TokenizerError(f"{path} can't be read: {error}") from error
