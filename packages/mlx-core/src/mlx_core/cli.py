"""The command of every language-model package: generate, chat, convert, bench, perplexity.

A package's own `cli.py` gives the command's name and its default model. Results go to stdout, statistics and progress to
stderr.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from .cache import KeyValueCache, RotatingKVCache, quantize_cache
from .checkpoints import Checkpoint
from .config import QUANTIZATION_MODES
from .engines import engine_names
from .errors import InputError, MissingCheckpointError, MLXCoreError
from .generation import (
    ChatSession,
    Draft,
    DraftModel,
    GenerationStats,
    PromptLookup,
    SamplingParams,
    perplexity,
    stream_generate,
)
from .models import RECIPES, CausalLM, convert_model, load, load_model
from .terminal import add_json_option, fail, note, progress, run_command, stdin
from .text import ReplyParser, Tokenizer, reply_format

_RESERVED_VARIABLES = frozenset({"messages", "tools", "add_generation_prompt", "template"})  # of a chat template


_DTYPES = ("float32", "float16", "bfloat16")


@dataclass(frozen=True)
class Family:
    """The command of a package: its name, and the model that it runs by default.

    `default_model` returns the model's path, or raises MLXCoreError; None for a package without one. `adapt` is passed to
    `load` with that model.
    """

    command: str
    description: str
    default_model: Callable[[], Path] | None
    adapt: Callable[[Checkpoint], Checkpoint] | None = None


def main(family: Family, arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 0, 1 for an error (printed on stderr), 130 for Ctrl-C."""
    return run_command(_parser(family), arguments)


def _add_model_options(parser: argparse.ArgumentParser, family: Family) -> None:
    group = parser.add_argument_group("model")
    default = " (default: the embedded demonstration model)" if family.default_model else ""
    ids = "org/name, org/name:Q4_K_M of GGUF files, modelscope:org/name"
    group.add_argument("--model", help=f"folder, .gguf file or hub id: {ids}{default}")
    group.add_argument("--dtype", choices=_DTYPES, help="compute dtype (default: the backend's)")
    group.add_argument("--quantize", type=int, metavar="BITS", help="pack the weights at load")
    group.add_argument(
        "--keep-packed",
        action=argparse.BooleanOptionalAction,
        help="keep packed weights packed, or dequantise them (default: the backend's choice)",
    )
    group.add_argument(
        "--engine", default="auto", help=f"who runs the model: {', '.join(engine_names())} or auto (default: auto)"
    )


def _add_sampling_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("sampling")
    group.add_argument("--max-tokens", type=int, metavar="N", help="length of an answer (default: 256; chat: 1024)")
    group.add_argument("--temp", type=float, dest="temperature", help="temperature; 0 is greedy (default: 0)")
    group.add_argument("--top-p", type=float)
    group.add_argument("--top-k", type=int)
    group.add_argument("--min-p", type=float)
    group.add_argument("--typical-p", type=float)
    group.add_argument("--xtc-probability", type=float)
    group.add_argument("--xtc-threshold", type=float)
    group.add_argument("--repetition-penalty", type=float)
    group.add_argument("--presence-penalty", type=float)
    group.add_argument("--frequency-penalty", type=float)
    group.add_argument("--seed", type=int, help="the same seed gives the same answer")
    group.add_argument("--stop", action="append", metavar="TEXT", help="end before this text; may be repeated")
    group.add_argument("--min-tokens", type=int, metavar="N")
    group.add_argument("--thinking-budget", type=int, metavar="N", help="close a thinking block after N tokens")


def _add_prompt_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("prompt")
    group.add_argument("--system", help="system message")
    group.add_argument(
        "--template-variable",
        action="append",
        default=[],
        metavar="NAME=JSON",
        help="a variable of the chat template, such as enable_thinking=false; may be repeated",
    )


def _add_cache_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("KV cache")
    group.add_argument("--kv-bits", type=int, metavar="BITS", help="quantise the cache, usually to 4 or 8 bits")
    group.add_argument("--kv-group-size", type=int, default=64, metavar="N", help="with --kv-bits (default: 64)")
    group.add_argument("--max-kv-size", type=int, metavar="N", help="keep the first 4 and the latest tokens, N in all")


def _add_draft_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("speculative decoding (the answer stays the same)")
    either = group.add_mutually_exclusive_group()
    either.add_argument("--draft-model", metavar="MODEL", help="a smaller model with the same vocabulary")
    either.add_argument(
        "--prompt-lookup",
        type=int,
        nargs="?",
        const=3,
        metavar="NGRAM",
        help="propose repetitions of text (default: 3)",
    )
    group.add_argument("--draft-tokens", type=int, metavar="N", help="tokens to propose at once (default: the draft's)")


def _parser(family: Family) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=family.command, description=family.description)
    parser.set_defaults(family=family)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("generate", help="answer one prompt")
    _add_model_options(command, family)
    _add_sampling_options(command)
    _add_prompt_options(command)
    _add_cache_options(command)
    _add_draft_options(command)
    command.add_argument("prompt", help="the prompt, or - to read it from standard input")
    command.add_argument("--raw", action="store_true", help="continue the prompt as it is, without a chat template")
    command.add_argument(
        "--tools", metavar="FILE", help="a JSON list of the schemas of functions that the model may call"
    )
    add_json_option(command)
    command.add_argument("--quiet", action="store_true", help="no statistics")
    command.set_defaults(run=_generate)

    command = commands.add_parser("chat", help="hold a conversation")
    _add_model_options(command, family)
    _add_sampling_options(command)
    _add_prompt_options(command)
    _add_cache_options(command)
    command.add_argument("--quiet", action="store_true", help="no statistics")
    command.set_defaults(run=_chat)

    command = commands.add_parser("convert", help="convert a checkpoint to MLX safetensors, quantised or not")
    command.add_argument("source", help="folder (safetensors or torch files), .gguf file or hub id")
    command.add_argument("folder", help="where to write: a new or an empty folder")
    command.add_argument("--bits", type=int, metavar="N", help="quantise to 2, 3, 4, 5, 6 or 8 bits")
    command.add_argument("--group-size", type=int, metavar="N", help="32, 64 or 128 (default: the mode's)")
    command.add_argument("--mode", choices=sorted(QUANTIZATION_MODES), help="quantisation mode (default: affine)")
    command.add_argument("--recipe", choices=sorted(RECIPES), help="more bits where they matter most")
    command.add_argument("--dequantize", action="store_true", help="unpack quantised weights first")
    command.add_argument("--dtype", choices=_DTYPES, help="cast (default: as it is)")
    command.add_argument("--max-shard-gb", type=float, default=5, metavar="N", help="size of a file (default: 5)")
    command.set_defaults(run=_convert)

    command = commands.add_parser("bench", help="measure prefill and decode speed")
    _add_model_options(command, family)
    command.add_argument("--prompt-tokens", type=int, default=512, metavar="N")
    command.add_argument("--generate-tokens", type=int, default=128, metavar="N")
    command.add_argument("--rounds", type=int, default=5, metavar="N")
    command.add_argument("--compare", action="append", default=[], choices=["mlx-lm"], help="alternate with a peer")
    add_json_option(command)
    command.set_defaults(run=_bench)

    command = commands.add_parser("perplexity", help="measure how well a text is predicted")
    _add_model_options(command, family)
    _add_cache_options(command)
    command.add_argument("file", help="a UTF-8 text file, or - for standard input")
    command.add_argument("--window", type=int, metavar="N", help="tokens read at once (default: 1024, or the context)")
    add_json_option(command)
    command.set_defaults(run=_perplexity)
    return parser


def _generate(args: argparse.Namespace) -> int:
    # a pipe's last line ends with a newline, which isn't part of what was asked
    prompt = stdin().read().removesuffix("\n") if args.prompt == "-" else args.prompt
    if not prompt.strip() and not args.raw:
        raise InputError("the prompt is empty: there is nothing to answer.")
    params, tools = _params(args), _tools(args)
    model, tokenizer, _ = _load(args)
    parser = None
    if args.raw or not tokenizer.has_chat_template:
        tokens = tokenizer.encode(prompt)
    else:
        messages = [{"role": "system", "content": args.system}] if args.system else []
        messages.append({"role": "user", "content": prompt})
        rendered = tokenizer.apply_chat_template(messages, tools=tools, **_template_variables(args))
        tokens = tokenizer.encode(rendered, add_special_tokens=False)
        form = reply_format(tokenizer.template_source(tools=bool(tools)))
        parser = ReplyParser(form, tools=tools or [], thinking_open=form.opens_thinking(rendered))
    with stream_generate(
        model,
        tokenizer,
        tokens,
        params=params,
        cache=_cache(model, args),
        draft=_draft(args),
        on_progress=progress("prompt tokens", minimum=2048),
        shown_special_tokens=parser.format.special_tokens if parser else (),
    ) as generation:
        texts, reason = [], "length"
        for chunk in generation:
            texts.append(chunk.text)
            reason = chunk.finish_reason or reason
            if not args.json:
                print(chunk.text, end="", flush=True)
    if args.json:
        result: dict[str, Any] = {"text": "".join(texts), "tokens": generation.tokens, "finish_reason": reason}
        if parser is not None:
            parser.feed(result["text"])
            parser.finish()
            result["reply"] = asdict(parser.reply)
        print(json.dumps({**result, "stats": _stats(generation.stats)}, ensure_ascii=False))
    else:
        print()
    if not args.quiet:
        note(_summary(generation.stats))
    return 0


def _tools(args: argparse.Namespace) -> list[dict[str, Any]] | None:
    if args.tools is None:
        return None
    try:
        tools = json.loads(Path(args.tools).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{args.tools} can't be read as JSON: {error}.") from error
    if not isinstance(tools, list):
        raise InputError(f"{args.tools} holds a {type(tools).__name__}; expected a list of JSON schemas of functions.")
    return tools


def _convert(args: argparse.Namespace) -> int:
    started = time.perf_counter()
    given = {"bits": args.bits, "group_size": args.group_size, "mode": args.mode, "recipe": args.recipe}
    if not 0 < args.max_shard_gb < 2**20:
        raise InputError(f"--max-shard-gb is a positive number; got {args.max_shard_gb}.")
    report = convert_model(
        args.source,
        args.folder,
        quantize={name: value for name, value in given.items() if value is not None} or None,
        dtype=args.dtype,
        dequantize=args.dequantize,
        max_shard_bytes=int(args.max_shard_gb * 2**30),
        on_progress=progress("bytes", minimum=2**28),
    )
    note(f"{report}")
    note(f"{report.bits_per_weight:.2f} bits per weight, {time.perf_counter() - started:.1f} s")
    print(args.folder)
    return 0


def _draft(args: argparse.Namespace) -> Draft | None:
    tokens = {} if args.draft_tokens is None else {"num_tokens": args.draft_tokens}
    if args.prompt_lookup is not None:
        return PromptLookup(args.prompt_lookup, **tokens)
    if args.draft_model is not None:
        settings = {"dtype": args.dtype, "keep_packed": args.keep_packed, "engine": args.engine}
        return DraftModel(load_model(args.draft_model, **settings), **tokens)
    if tokens:
        raise InputError("--draft-tokens needs a draft: give --draft-model or --prompt-lookup.")
    return None


def _cache(model: CausalLM, args: argparse.Namespace) -> list[KeyValueCache]:
    """An empty cache with the options of the command line."""
    cache = model.make_cache()
    if args.max_kv_size is not None:
        sinks = min(4, args.max_kv_size - 1)
        cache = [RotatingKVCache(args.max_kv_size, sinks) if layer.max_size is None else layer for layer in cache]
    return cache if args.kv_bits is None else quantize_cache(cache, bits=args.kv_bits, group_size=args.kv_group_size)


def _chat(args: argparse.Namespace) -> int:
    params = _params(args, max_tokens=1024)
    model, tokenizer, _ = _load(args)
    session = ChatSession(
        model,
        tokenizer,
        params=params,
        system=args.system,
        template_variables=_template_variables(args),
        make_cache=lambda: _cache(model, args),
    )
    interactive = stdin().isatty()
    if interactive:
        note("Ctrl-C stops an answer, /reset starts a new conversation, Ctrl-D or /exit leaves.")
    while True:
        try:
            line = input("> " if interactive else "")
        except EOFError:
            return 0
        except KeyboardInterrupt:
            note("")
            return 0
        if line.strip() == "/exit":
            return 0
        if line.strip() == "/reset":
            session.reset()
            continue
        if not line.strip():
            continue
        chunks = session.send(line, on_progress=progress("prompt tokens", minimum=2048))
        try:
            for chunk in chunks:
                print(chunk.text, end="", flush=True)
        except KeyboardInterrupt:
            note(" [interrupted]")
        except MLXCoreError as error:  # the history stays: a shorter message may work, or /reset
            fail(error)
        finally:
            chunks.close()
        print()
        if not args.quiet and session.stats is not None:
            note(_summary(session.stats))


def _bench(args: argparse.Namespace) -> int:
    from .bench import PEERS, bench  # NumPy takes longer to import than all of the above

    start = time.perf_counter()
    model, _, config = _load(args)
    load_s = time.perf_counter() - start
    result = bench(
        model,
        prompt_tokens=args.prompt_tokens,
        generate_tokens=args.generate_tokens,
        rounds=args.rounds,
        peers={name: PEERS[name](model, config) for name in args.compare},
        on_round=lambda done, total: note(f"round {done} of {total}" if done else "warm-up"),
    )
    if args.json:
        print(json.dumps({"load_s": load_s, **result.to_dict()}))
        return 0
    print(
        f"{result.backend} ({result.device}), prompt {result.prompt_tokens}, {result.generated_tokens} tokens generated"
    )
    print(f"load {load_s:.2f} s, peak memory {result.peak_memory_bytes / 2**20:,.0f} MiB")
    print(f"{'':10}{'prefill tok/s':>26}{'decode tok/s':>26}")
    for name, speeds in result.speeds.items():
        cells = [
            f"{median:.1f} ({low:.1f} to {high:.1f})"
            for median, (low, high) in ((speeds.prefill, speeds.prefill_range), (speeds.decode, speeds.decode_range))
        ]
        print(f"{name:10}{cells[0]:>26}{cells[1]:>26}")
    for name, ratio in sorted(result.ratios.items(), reverse=True):
        print(f"ours {name}: {ratio:.2f}x (median of {result.rounds} rounds)")
    return 0


def _perplexity(args: argparse.Namespace) -> int:
    try:
        text = stdin().read() if args.file == "-" else Path(args.file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{args.file} can't be read as UTF-8 text: {error}.") from error
    model, tokenizer, _ = _load(args)
    result = perplexity(
        model,
        tokenizer.encode(text),
        window=args.window,
        make_cache=lambda: _cache(model, args),
        on_progress=progress("tokens", minimum=2048),
    )
    if args.json:
        print(json.dumps({"perplexity": result.perplexity, "nll": result.nll, "tokens": result.tokens}))
    else:
        print(f"perplexity {result.perplexity:.4f} (mean NLL {result.nll:.4f} nats over {result.tokens:,} tokens)")
    return 0


def _load(args: argparse.Namespace) -> tuple[CausalLM, Tokenizer, dict[str, Any]]:
    family: Family = args.family
    path, adapt = args.model, None
    if path is None:
        if family.default_model is None:
            raise MissingCheckpointError(
                f"no model was given, and {family.command} has no demonstration model: no package registry has weights of "
                "this family. Give --model a folder, a .gguf file or a hub id (org/name)."
            )
        path, adapt = family.default_model(), family.adapt
    loaded = load(
        path, dtype=args.dtype, quantize=args.quantize, keep_packed=args.keep_packed, engine=args.engine, adapt=adapt
    )
    note(f"{loaded[0].load_report}")
    return loaded


def _params(args: argparse.Namespace, **defaults: Any) -> SamplingParams:
    """The sampling parameters of the command line; the others have their defaults."""
    names = [field.name for field in fields(SamplingParams)]
    given = {name: value for name in names if (value := getattr(args, name, None)) is not None}
    return SamplingParams(**{**defaults, **given})


def _template_variables(args: argparse.Namespace) -> dict[str, Any]:
    variables = {}
    for entry in args.template_variable:
        name, equals, value = entry.partition("=")
        try:
            variables[name] = json.loads(value)
        except ValueError as error:
            raise InputError(
                f"--template-variable takes NAME=JSON, such as enable_thinking=false; got {entry!r}."
            ) from error
        if not (equals and name.isidentifier()) or name in _RESERVED_VARIABLES:
            raise InputError(f"--template-variable takes NAME=JSON, such as enable_thinking=false; got {entry!r}.")
    return variables


def _stats(stats: GenerationStats) -> dict[str, Any]:
    rates = {name: getattr(stats, name) for name in ("prefill_tokens_per_s", "decode_tokens_per_s", "acceptance_rate")}
    return {**asdict(stats), **rates}


def _summary(stats: GenerationStats) -> str:
    cached = f" (+{stats.cached_tokens} cached)" if stats.cached_tokens else ""
    return (
        f"prompt {stats.prompt_tokens} tokens{cached}, {stats.prefill_tokens_per_s:.1f} tok/s; "
        f"generated {stats.generated_tokens}, {stats.decode_tokens_per_s:.1f} tok/s"
        + (
            f"; accepted {stats.acceptance_rate:.0%} of {stats.drafted_tokens} drafted tokens"
            if stats.drafted_tokens
            else ""
        )
    )
