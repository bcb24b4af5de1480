"""The commands that speak: `synthesize`, `stream`, `voices`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from mlx_core.errors import InputError
from mlx_core.terminal import note, progress, stdin

if TYPE_CHECKING:
    from .cloning import SpeechSegment, VoiceCloner

_LANGUAGE_HELP = "auto, zh, en, ja, ko, yue, all_zh ... (default: auto)"


def add_commands(commands: Any) -> None:
    """Their parsers."""
    models = argparse.ArgumentParser(add_help=False)
    group = models.add_argument_group("models and voice")
    group.add_argument("--models", metavar="DIR", help="a folder with the networks; see the documentation for names")
    for name in ("t2s", "sovits"):
        group.add_argument(f"--{name}", metavar="PATH", help=f"{name} from elsewhere")
    group.add_argument(
        "--demo", action="store_true", help="random weights and a recording: shows the way, not the sound"
    )
    group.add_argument("--reference", action="append", metavar="FILE", help="a recording of 3 to 10 s; may be repeated")
    group.add_argument("--prompt-text", metavar="TEXT", help="what the first recording says")
    group.add_argument("--prompt-language", metavar="LANG", help=_LANGUAGE_HELP)
    group.add_argument("--trim", action="store_true", help="shorten recordings of more than 10 s")
    group.add_argument("--voices-dir", metavar="DIR", default="voices", help="the voices library (default: ./voices)")
    group.add_argument("--voice", metavar="NAME", help="a voice of the library instead of --reference")

    speaking = argparse.ArgumentParser(add_help=False)
    speaking.add_argument("text", help="what to say; - reads it from stdin")
    group = speaking.add_argument_group("speaking")
    group.add_argument("--language", default="auto", help=_LANGUAGE_HELP)
    group.add_argument("--speed", type=float, default=1.0)
    group.add_argument("--top-k", type=int, default=15)
    group.add_argument("--top-p", type=float, default=1.0)
    group.add_argument("--temperature", type=float, default=1.0)
    group.add_argument("--repetition-penalty", type=float, default=1.35)
    group.add_argument("--seed", type=int, help="the same one gives the same speech")
    group.add_argument("--split", default="cut5", help="how sentences are cut, cut0 to cut5 (default: cut5)")
    group.add_argument("--pause", type=float, default=0.3, metavar="S", help="silence between sentences")
    group.add_argument("--steps", type=int, metavar="N", help="of v3's and v4's solver")

    command = commands.add_parser("synthesize", parents=[models, speaking], help="speak a text into a file")
    command.add_argument("--output", "-o", default="speech.wav", help="wav, flac, ogg or mp3 (default: speech.wav)")
    command.add_argument("--json", action="store_true", help="print what was spoken as JSON")
    command.set_defaults(run=_synthesize)

    command = commands.add_parser(
        "stream", parents=[models, speaking], help="speak a text to stdout as it is made: 16-bit samples, one channel"
    )
    command.set_defaults(run=_stream)

    command = commands.add_parser("voices", help="keep voices, so that a recording is worked on once")
    actions = command.add_subparsers(required=True, metavar="ACTION")
    action = actions.add_parser("add", parents=[models], help="prepare a voice and keep it")
    action.add_argument("name")
    action.set_defaults(run=_add_voice)
    action = actions.add_parser("list", help="the voices that there are")
    action.add_argument("--voices-dir", metavar="DIR", default="voices")
    action.add_argument("--json", action="store_true")
    action.set_defaults(run=_list_voices)
    action = actions.add_parser("remove", help="forget a voice")
    action.add_argument("name")
    action.add_argument("--voices-dir", metavar="DIR", default="voices")
    action.set_defaults(run=_remove_voice)


def _synthesize(args: argparse.Namespace) -> int:
    from .files import check_name, sound_file

    check_name(args.output)
    text = stdin().read() if args.text == "-" else args.text
    cloner = _cloner(args, text)
    segments: list[SpeechSegment] = []
    first = samples = 0.0
    chunks = cloner.stream(text, **_options(args), on_progress=progress("sentences", minimum=1))
    with sound_file(args.output, cloner.sample_rate) as write:
        elapsed = 0.0
        for chunk in chunks:
            first = first or chunk.elapsed_s
            elapsed = chunk.elapsed_s
            samples += len(chunk.samples)
            if chunk.segment is not None:
                segments.append(chunk.segment)
            write(chunk.samples)
    seconds = samples / cloner.sample_rate
    _warn(segments)
    if args.json:
        print(
            json.dumps(
                {
                    "file": str(args.output),
                    "sample_rate": cloner.sample_rate,
                    "duration_s": seconds,
                    "elapsed_s": elapsed,
                    "first_packet_s": first,
                    "segments": [_told(segment) for segment in segments],
                },
                ensure_ascii=False,
            )
        )
    else:
        print(args.output)
        rtf = elapsed / seconds if seconds else float("nan")
        note(f"{seconds:.1f} s of speech in {elapsed:.1f} s (RTF {rtf:.2f}), the first samples after {first:.2f} s")
    return 0


def _stream(args: argparse.Namespace) -> int:
    import numpy as np

    text = stdin().read() if args.text == "-" else args.text
    cloner = _cloner(args, text)
    output = sys.stdout.buffer
    if output.isatty():
        raise InputError("samples are bytes, which a terminal can't show. Pipe them: `... | aplay -f S16_LE -r RATE`.")
    note(f"{cloner.sample_rate} Hz, 16 bits, one channel")
    segments = []
    for number, chunk in enumerate(cloner.stream(text, **_options(args))):
        if number == 0:
            note(f"the first samples after {chunk.elapsed_s:.2f} s")
        if chunk.segment is not None:
            segments.append(chunk.segment)
        output.write((np.clip(chunk.samples, -1, 1) * 32767).astype("<i2").tobytes())
        output.flush()
    _warn(segments)
    return 0


def _add_voice(args: argparse.Namespace) -> int:
    from .voices import VoiceLibrary

    if args.voice is not None:
        raise InputError("a voice is made of recordings: give --reference instead of --voice.")
    cloner = _cloner(args, "")
    if cloner.voice is None:
        raise InputError("a voice is made of recordings: give --reference.")
    print(VoiceLibrary(args.voices_dir).add(args.name, cloner.voice))
    return 0


def _list_voices(args: argparse.Namespace) -> int:
    from .voices import VoiceLibrary

    found = list(VoiceLibrary(args.voices_dir).describe())
    if args.json:
        print(json.dumps(found, ensure_ascii=False))
        return 0
    for voice in found:
        print("\t".join(str(voice[key] or "") for key in ("name", "version", "language", "text")))
    if not found:
        note(f"there are no voices in {args.voices_dir}")
    return 0


def _remove_voice(args: argparse.Namespace) -> int:
    from .voices import VoiceLibrary

    VoiceLibrary(args.voices_dir).remove(args.name)
    return 0


def _cloner(args: argparse.Namespace, text: str) -> VoiceCloner:
    from .cloning import VoiceCloner

    if args.voice is not None and (args.demo or args.reference or args.prompt_text):
        raise InputError("--voice is all that is said of a voice: leave --demo, --reference and --prompt-text out.")
    if args.demo:
        return _demo(args, text)
    if args.models is None:
        raise InputError(
            "no models were named: give --models a folder with the networks. --demo shows the way with random weights."
        )
    cloner = VoiceCloner(args.models, t2s=args.t2s, sovits=args.sovits)
    if args.voice is not None:
        cloner.use_voice(args.voice, args.voices_dir)
    elif args.reference:
        cloner.set_reference_audio(args.reference, args.prompt_text, args.prompt_language, trim=args.trim)
    else:
        raise InputError("whose voice? Give --reference a recording, or --voice a name of the library.")
    return cloner


def _demo(args: argparse.Namespace, text: str) -> VoiceCloner:
    from .cloning import VoiceCloner
    from .demo import NOTE, RECORDING_TEXT, demo_models, demo_recording
    from .generation import Guard

    note(NOTE)
    said = args.prompt_text if args.reference else RECORDING_TEXT
    chinese = any("一" <= character <= "鿿" for character in text + (said or ""))
    cloner = VoiceCloner(demo_models(chinese=chinese or not text.isascii()), guard=Guard(retries=0))
    cloner.set_reference_audio(args.reference or demo_recording(), said, args.prompt_language, trim=args.trim)
    return cloner


def _options(args: argparse.Namespace) -> dict[str, Any]:
    from .demo import MAX_TOKENS

    names = ("language", "speed", "top_k", "top_p", "temperature", "repetition_penalty", "seed", "split", "steps")
    options = {name: getattr(args, name) for name in names}
    options["pause_s"] = args.pause
    if args.demo:
        options["max_tokens"] = MAX_TOKENS
    return options


def _warn(segments: Iterable[SpeechSegment]) -> None:
    for segment in segments:
        if segment.verdict != "ok":
            note(f"{segment.verdict} after {len(segment.attempts)} attempts: {segment.text[:60]!r}")


def _told(segment: SpeechSegment) -> dict[str, Any]:
    return {
        "text": segment.text,
        "normalized": segment.normalized,
        "start_s": segment.start_s,
        "end_s": segment.end_s,
        "verdict": segment.verdict,
        "seeds": [attempt.seed for attempt in segment.attempts],
    }
