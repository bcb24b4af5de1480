"""The `gpt-sovits-mlx` command: synthesize, stream, voices, convert, info, phonemes, bench."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from mlx_core.errors import InputError
from mlx_core.terminal import note, progress, run_command, stdin

if TYPE_CHECKING:
    from .cloning import SpeechSegment, VoiceCloner
    from .options import SpeechOptions
    from .text import Utterance

_LANGUAGES = "auto, zh, en, ja, ko, yue, all_zh ... (default: auto)"
_SPLIT = "how sentences are cut, cut0 to cut5 (default: cut5)"
_VERSIONS = "v1, v2, v2Pro, v2ProPlus, v3 or v4"
_EXACT_TEXT = "read text as the official front end does, its defects included; without markup"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 0, 1 for an error (on stderr), 2 for wrong usage, 130 for Ctrl-C."""
    return run_command(_parser(), arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gpt-sovits-mlx", description="GPT-SoVITS on MLX.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    voice, speech = _voice_arguments(), _speech_arguments()

    command = commands.add_parser("synthesize", parents=[voice, speech], help="speak a text into a file")
    command.add_argument("--output", "-o", default="speech.wav", help="wav, flac, ogg or mp3 (default: speech.wav)")
    command.add_argument("--json", action="store_true", help="print what was spoken as JSON")
    command.set_defaults(run=_synthesize)

    command = commands.add_parser(
        "stream", parents=[voice, speech], help="speak a text to stdout as it is made: 16-bit samples, one channel"
    )
    command.set_defaults(run=_stream)

    command = commands.add_parser("voices", help="keep voices, so that a recording is worked on once")
    actions = command.add_subparsers(required=True, metavar="ACTION")
    action = actions.add_parser("add", parents=[voice], help="prepare a voice and keep it")
    action.add_argument("name")
    action.set_defaults(run=_add_voice)
    action = actions.add_parser("list", help="the voices that there are")
    action.add_argument("--voices-dir", metavar="DIR", default="voices")
    action.add_argument("--json", action="store_true")
    action.set_defaults(run=_list_voices)
    action = actions.add_parser("remove", help="delete a voice")
    action.add_argument("name")
    action.add_argument("--voices-dir", metavar="DIR", default="voices")
    action.set_defaults(run=_remove_voice)

    command = commands.add_parser("convert", help="write a released file or folder as safetensors")
    command.add_argument("source", help="a .ckpt or .pth file, a folder with config.json, or a hub id")
    command.add_argument("folder", help="the folder to write, which must not exist")
    command.add_argument("--base", help="for a LoRA: the file or folder of the model that it was trained on")
    command.add_argument("--dtype", choices=["float16", "float32"], default="float16")
    command.add_argument("--bits", type=int, choices=[4, 8], help="pack the linear layers of T2S or BERT")
    command.add_argument("--group-size", type=int, choices=[32, 64, 128], default=64)
    command.set_defaults(run=_convert)

    command = commands.add_parser("info", help="tell what a released file or folder holds")
    command.add_argument("source", help="a .ckpt or .pth file, a folder, or a hub id")
    command.add_argument("--json", action="store_true", help="print the result as JSON")
    command.set_defaults(run=_info)

    command = commands.add_parser("phonemes", help="show how a text is read: languages, words, phones")
    command.add_argument("text", help="what is to be spoken; - reads it from stdin")
    command.add_argument("--language", default="auto", help=_LANGUAGES)
    command.add_argument("--version", default="v2", help=f"of the networks: {_VERSIONS} (default: v2)")
    command.add_argument("--exact-text", action="store_true", help=_EXACT_TEXT)
    command.add_argument("--split", default="cut5", help=_SPLIT)
    command.add_argument(
        "--g2pw", metavar="FOLDER", help="a g2pW model (or its hub id) for characters with several readings"
    )
    command.add_argument("--json", action="store_true", help="print the result as JSON")
    command.set_defaults(run=_phonemes)

    command = commands.add_parser("bench", help="time each stage at full size, on random weights")
    command.add_argument("--stage", action="append", help="one of them; may be repeated (default: all)")
    command.add_argument("--version", default="v2", help=f"of SoVITS: {_VERSIONS} (default: v2)")
    command.add_argument("--rounds", type=int, default=3, metavar="N")
    command.add_argument("--steps", type=int, metavar="N", help="of the flow (default: 32 for v3, 8 for v4)")
    command.add_argument("--json", action="store_true", help="print the result as JSON")
    command.set_defaults(run=_bench)
    return parser


def _voice_arguments() -> argparse.ArgumentParser:
    """The arguments for models and voice."""
    parser = argparse.ArgumentParser(add_help=False)
    group = parser.add_argument_group("models and voice")
    group.add_argument(
        "--models", metavar="DIR", help="a folder with the networks, or a hub id; the documentation lists the names"
    )
    group.add_argument("--version", help=f"the pretrained networks of {_VERSIONS}, where the folder holds several")
    for name in ("t2s", "sovits"):
        group.add_argument(f"--{name}", metavar="PATH", help=f"{name} from elsewhere: a path or a hub id")
    group.add_argument(
        "--demo", action="store_true", help="random weights and a recording: shows the way, not the sound"
    )
    group.add_argument("--exact-text", action="store_true", help=_EXACT_TEXT)
    group.add_argument("--reference", action="append", metavar="FILE", help="a recording of 3 to 10 s; may be repeated")
    group.add_argument("--prompt-text", metavar="TEXT", help="what the first recording says")
    group.add_argument("--prompt-language", metavar="LANG", help=_LANGUAGES)
    group.add_argument("--trim", action="store_true", help="shorten recordings of more than 10 s")
    group.add_argument("--voices-dir", metavar="DIR", default="voices", help="the voices library (default: ./voices)")
    group.add_argument("--voice", metavar="NAME", help="a voice of the library instead of --reference")
    return parser


def _speech_arguments() -> argparse.ArgumentParser:
    """The text and the fields of `SpeechOptions`, whose defaults hold where an argument isn't given."""
    parser = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    parser.add_argument("text", help="what to say; - reads it from stdin")
    group = parser.add_argument_group("speaking")
    group.add_argument("--language", help=_LANGUAGES)
    group.add_argument("--speed", type=float, help="0.1 to 10 (default: 1)")
    group.add_argument("--top-k", type=int, help="draw from so many tokens (default: 15)")
    group.add_argument("--top-p", type=float, help="draw from so much probability (default: 1, all)")
    group.add_argument("--temperature", type=float, help="default: 1")
    group.add_argument("--repetition-penalty", type=float, help="default: 1.35")
    group.add_argument("--max-tokens", type=int, metavar="N", help="of a sentence, 25 a second (default: 1500)")
    group.add_argument("--seed", type=int, help="the same one gives the same speech")
    group.add_argument("--split", help=_SPLIT)
    group.add_argument("--pause", type=float, dest="pause_s", metavar="S", help="between sentences (default: 0.3)")
    group.add_argument("--steps", type=int, metavar="N", help="of v3's and v4's solver (default: 32 and 8)")
    return parser


def _synthesize(args: argparse.Namespace) -> int:
    from .sound_files import check_name, sound_file

    check_name(args.output)
    options, text = _options(args), _text(args)
    cloner = _cloner(args, text)
    segments: list[SpeechSegment] = []
    first_s = elapsed_s = 0.0
    samples = 0
    with sound_file(args.output, cloner.sample_rate) as write:
        for chunk in cloner.stream(text, options, on_progress=progress("sentences", minimum=1)):
            elapsed_s = chunk.elapsed_s
            first_s = first_s or elapsed_s
            samples += len(chunk.samples)
            if chunk.segment is not None:
                segments.append(chunk.segment)
            write(chunk.samples)
    duration_s = samples / cloner.sample_rate
    _warn(segments)
    if args.json:
        found = {
            "file": str(args.output),
            "sample_rate": cloner.sample_rate,
            "duration_s": duration_s,
            "elapsed_s": elapsed_s,
            "first_packet_s": first_s,
            "segments": [_segment_fields(segment) for segment in segments],
        }
        print(json.dumps(found, ensure_ascii=False))
    else:
        print(args.output)
        rtf = elapsed_s / duration_s if duration_s else float("nan")
        note(
            f"{duration_s:.1f} s of speech in {elapsed_s:.1f} s (RTF {rtf:.2f}), the first samples after {first_s:.2f} s"
        )
    return 0


def _stream(args: argparse.Namespace) -> int:
    import numpy as np

    options, text = _options(args), _text(args)
    cloner = _cloner(args, text)
    output = sys.stdout.buffer
    if output.isatty():
        raise InputError("samples are bytes, which a terminal can't show. Pipe them: `... | aplay -f S16_LE -r RATE`.")
    note(f"{cloner.sample_rate} Hz, 16 bits, one channel")
    segments = []
    for number, chunk in enumerate(cloner.stream(text, options)):
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
    from .checkpoints import resolve_network
    from .text import G2PW, TextFrontend

    _note_detector(args)
    polyphones = G2PW(resolve_network(args.g2pw)) if args.g2pw else None
    frontend = TextFrontend(args.version, exact=args.exact_text, polyphones=polyphones)
    found = frontend(_text(args), args.language, split=args.split)
    if args.json:
        print(json.dumps([_utterance_fields(utterance) for utterance in found], ensure_ascii=False))
    else:
        print("\n\n".join("\n".join(_utterance_lines(utterance)) for utterance in found))
    return 0


def _bench(args: argparse.Namespace) -> int:
    from .bench import bench, lines

    timings = bench(args.stage, version=args.version, rounds=args.rounds, steps=args.steps, on_stage=note)
    if args.json:
        print(json.dumps([timing.to_dict() for timing in timings]))
    else:
        print("\n".join(lines(timings)))
    return 0


def _text(args: argparse.Namespace) -> str:
    """The text that was given, or standard input for `-`."""
    return stdin().read() if args.text == "-" else str(args.text)


def _options(args: argparse.Namespace) -> SpeechOptions:
    """The options of speech that were given. Raises InputError."""
    from .demo import MAX_TOKENS
    from .options import SpeechOptions

    given = {field.name: getattr(args, field.name) for field in fields(SpeechOptions) if hasattr(args, field.name)}
    return SpeechOptions(**({"max_tokens": MAX_TOKENS} | given if args.demo else given))


def _cloner(args: argparse.Namespace, text: str) -> VoiceCloner:
    """The networks with the voice set. Raises InputError where it isn't said which, and the errors of loading."""
    from .cloning import VoiceCloner

    if args.voice is not None and (args.demo or args.reference or args.prompt_text):
        raise InputError("--voice is all that is said of a voice: leave --demo, --reference and --prompt-text out.")
    _note_detector(args)
    if args.demo:
        return _demo_cloner(args, text)
    if args.models is None:
        raise InputError(
            "no models were named: give --models a folder with the networks or a hub id. --demo shows the way with random "
            "weights."
        )
    cloner = VoiceCloner(
        args.models, version=args.version, exact_text=args.exact_text, t2s=args.t2s, sovits=args.sovits
    )
    if args.voice is not None:
        cloner.use_voice(args.voice, args.voices_dir)
    elif args.reference:
        cloner.set_reference_audio(args.reference, args.prompt_text, args.prompt_language, trim=args.trim)
    else:
        raise InputError("whose voice? Give --reference a recording, or --voice a name of the library.")
    return cloner


def _demo_cloner(args: argparse.Namespace, text: str) -> VoiceCloner:
    from .cloning import VoiceCloner
    from .demo import NOTE, RECORDING_TEXT, demo_models, demo_recording
    from .synthesis import Guard

    note(NOTE)
    prompt_text = args.prompt_text if args.reference else RECORDING_TEXT
    chinese = any("一" <= character <= "鿿" for character in text + (prompt_text or ""))
    models = demo_models(chinese=chinese or not text.isascii())
    cloner = VoiceCloner(models, guard=Guard(retries=0), exact_text=args.exact_text)
    cloner.set_reference_audio(args.reference or demo_recording(), prompt_text, args.prompt_language, trim=args.trim)
    return cloner


def _note_detector(args: argparse.Namespace) -> None:
    """Note that languages are told by script where the official detector isn't installed."""
    from .text import uses_official_detector

    if args.exact_text and not uses_official_detector():
        note("languages are told by their script; gpt-sovits-mlx[exact] tells them as the official code")


def _warn(segments: Iterable[SpeechSegment]) -> None:
    for segment in segments:
        if segment.verdict != "ok":
            note(f"{segment.verdict} after {len(segment.attempts)} attempts: {segment.text[:60]!r}")


def _segment_fields(segment: SpeechSegment) -> dict[str, Any]:
    return {
        "text": segment.text,
        "normalized": segment.normalized,
        "start_s": segment.start_s,
        "end_s": segment.end_s,
        "verdict": segment.verdict,
        "seeds": [attempt.seed for attempt in segment.attempts],
    }


def _utterance_fields(utterance: Utterance) -> dict[str, Any]:
    return {
        "text": utterance.text,
        "normalized": utterance.normalized,
        "pause_s": utterance.pause_s,
        "ids": list(utterance.ids),
        "segments": [
            {
                "language": part.language,
                "text": part.text,
                "normalized": part.normalized,
                "phones": list(part.phones),
                "word2ph": None if part.word2ph is None else list(part.word2ph),
            }
            for part in utterance.segments
        ],
    }


def _utterance_lines(utterance: Utterance) -> Iterator[str]:
    """A sentence for people: each segment's language, normalised text, phones and phones per character."""
    if utterance.text:
        yield utterance.text.strip()
    for part in utterance.segments:
        yield f"  {part.language:<8}{part.normalized.strip()}"
        yield f"  phones  {' '.join(part.phones)}"
        if part.word2ph is not None:
            yield f"  word2ph {' '.join(map(str, part.word2ph))}"
    if utterance.pause_s:
        yield f"  pause   {utterance.pause_s:g} s"
