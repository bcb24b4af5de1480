"""The `gpt-sovits-mlx` command: synthesize, stream, voices, convert, info, phonemes, bench."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from mlx_core.terminal import exit_status

from .command import add_commands


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 0, 1 for an error (on stderr), 2 for wrong usage, 130 for Ctrl-C."""
    args = _parser().parse_args(arguments)
    return exit_status(lambda: args.run(args))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gpt-sovits-mlx", description="GPT-SoVITS on MLX.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    add_commands(commands)

    command = commands.add_parser("convert", help="write a released file or folder as safetensors")
    command.add_argument("source", help="a .ckpt or .pth file, or a folder with config.json")
    command.add_argument("folder", help="the folder to write, which must not exist")
    command.add_argument("--base", help="for a LoRA: the file or folder of the model that it was trained on")
    command.add_argument("--dtype", choices=["float16", "float32"], default="float16")
    command.add_argument("--bits", type=int, choices=[4, 8], help="pack the linear layers of T2S or BERT")
    command.add_argument("--group-size", type=int, choices=[32, 64, 128], default=64)
    command.set_defaults(run=_convert)

    command = commands.add_parser("info", help="tell what a released file or folder holds")
    command.add_argument("source")
    command.add_argument("--json", action="store_true", help="print the result as JSON")
    command.set_defaults(run=_info)

    command = commands.add_parser("phonemes", help="show how a text is read: languages, words, phones")
    command.add_argument("text", help="what is to be spoken; - reads it from stdin")
    command.add_argument("--language", default="auto", help="auto, zh, en, ja, ko, yue, all_zh ... (default: auto)")
    command.add_argument("--version", default="v2", help="of the networks (default: v2)")
    command.add_argument("--exact", action="store_true", help="do as the official front end does, defects included")
    command.add_argument("--split", default="cut5", help="how to cut sentences: cut0 to cut5 (default: cut5)")
    command.add_argument("--g2pw", metavar="FOLDER", help="a g2pW model for characters with several readings")
    command.add_argument("--json", action="store_true", help="print the result as JSON")
    command.set_defaults(run=_phonemes)

    command = commands.add_parser("bench", help="time each stage at full size, on random weights")
    command.add_argument("--stage", action="append", help="one of them; may be repeated (default: all)")
    command.add_argument("--version", default="v2", help="of SoVITS: v1, v2, v2Pro, v2ProPlus, v3 or v4")
    command.add_argument("--rounds", type=int, default=3, metavar="N")
    command.add_argument("--steps", type=int, metavar="N", help="of the flow (default: 32 for v3, 8 for v4)")
    command.add_argument("--json", action="store_true", help="print the result as JSON")
    command.set_defaults(run=_bench)
    return parser


def _convert(args: argparse.Namespace) -> int:
    from .conversion import convert

    kind = convert(
        args.source, args.folder, base=args.base, dtype=args.dtype, bits=args.bits, group_size=args.group_size
    )
    print(f"{kind.model_type} written to {args.folder}")
    return 0


def _info(args: argparse.Namespace) -> int:
    from .conversion import describe

    found = describe(args.source)
    if args.json:
        print(json.dumps(found, ensure_ascii=False))
    else:
        print("\n".join(f"{name}: {value}" for name, value in found.items()))
    return 0


def _phonemes(args: argparse.Namespace) -> int:
    from .text import G2PW, TextFrontend, uses_official_detector
    from .text.command import as_json, as_text

    if args.exact and not uses_official_detector():
        print(
            "languages are told by their script; gpt-sovits-mlx[exact] tells them as the official code", file=sys.stderr
        )
    frontend = TextFrontend(args.version, exact=args.exact, polyphones=G2PW(args.g2pw) if args.g2pw else None)
    text = sys.stdin.read() if args.text == "-" else args.text
    found = frontend(text, args.language, split=args.split)
    print(as_json(found) if args.json else as_text(found))
    return 0


def _bench(args: argparse.Namespace) -> int:
    from .bench import bench, lines

    timings = bench(
        args.stage,
        version=args.version,
        rounds=args.rounds,
        steps=args.steps,
        on_stage=lambda stage: print(stage, file=sys.stderr, flush=True),
    )
    if args.json:
        print(json.dumps([timing.to_dict() for timing in timings]))
    else:
        print("\n".join(lines(timings)))
    return 0
