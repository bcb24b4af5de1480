"""The `funasr-mlx` command: transcribe, vad, punctuate, convert, evaluate, bench."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_core.errors import InputError, MLXCoreError
from mlx_core.terminal import fail, note, progress, run_command, stdin

if TYPE_CHECKING:
    from .pipeline import Pipeline
    from .streaming import StreamingSession
    from .text import Transcript

_FORMATS = ("text", "json", "srt", "vtt", "tsv")
_DEMO = "demo"
_MIC_BLOCK_MS = 100


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 0, 1 for an error (on stderr), 2 for wrong usage, 130 for Ctrl-C."""
    return run_command(_parser(), arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="funasr-mlx", description="Speech recognition on MLX.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    model = argparse.ArgumentParser(add_help=False)
    group = model.add_argument_group("model")
    group.add_argument(
        "--model",
        metavar="MODEL",
        help="a recognizer's folder or hub id (default: a tiny one that knows a few dozen words)",
    )
    group.add_argument(
        "--vad", metavar="MODEL", help="FSMN-VAD's folder or hub id, or `demo` for the released one of the demo wheel"
    )
    group.add_argument("--punc", metavar="MODEL", help="CT-Transformer's folder or hub id")
    group.add_argument("--hotwords", metavar="WORDS", help="hotwords, with blanks between")
    group.add_argument("--language", default="auto", help="SenseVoice's: auto, zh, en, yue, ja, ko (default: auto)")
    group.add_argument("--itn", action=argparse.BooleanOptionalAction, default=True, help="SenseVoice: write digits")
    group.add_argument("--batch-seconds", type=float, default=60.0, metavar="N", help="audio recognized at once")
    group.add_argument("--merge-seconds", type=float, metavar="N", help="join neighbouring stretches up to this length")

    command = commands.add_parser("transcribe", parents=[model], help="transcribe recordings")
    command.add_argument("files", nargs="*", metavar="FILE", help="sound files (default: a recording of the demo)")
    command.add_argument("--format", choices=_FORMATS, default="text")
    command.add_argument("--output-dir", type=Path, metavar="DIR", help="write NAME.FORMAT for each file there")
    command.add_argument("--stream", action="store_true", help="show text as it is recognized (a streaming model)")
    command.add_argument("--mic", action="store_true", help="listen to the microphone (a streaming model)")
    command.set_defaults(run=_transcribe)

    command = commands.add_parser("vad", help="print the times of speech in recordings")
    command.add_argument("files", nargs="*", metavar="FILE", help="sound files (default: a recording of the demo)")
    command.add_argument(
        "--model", default=_DEMO, metavar="MODEL", help="FSMN-VAD's folder or hub id (default: released)"
    )
    command.add_argument("--max-end-silence", type=int, metavar="MS", help="silence that ends a stretch")
    command.add_argument("--max-segment", type=int, metavar="MS", help="the longest stretch")
    command.add_argument("--threshold", type=float, metavar="X", help="speech_noise_thres: higher finds less speech")
    command.add_argument("--json", action="store_true", help="print the result as JSON")
    command.set_defaults(run=_vad)

    command = commands.add_parser("punctuate", help="restore punctuation in text")
    command.add_argument("text", nargs="?", help="the text (default: standard input)")
    command.add_argument("--punc", required=True, metavar="MODEL", help="CT-Transformer's folder or hub id")
    command.set_defaults(run=_punctuate)

    command = commands.add_parser("convert", help="write FunASR's folder of a model as safetensors")
    command.add_argument("source", help="a folder with config.yaml and model.pt, or a hub id")
    command.add_argument("folder", help="the folder to write, which must not exist")
    command.add_argument("--dtype", choices=["float16", "float32"], default="float16")
    command.add_argument("--bits", type=int, choices=[4, 8], help="pack the linear layers")
    command.add_argument("--group-size", type=int, choices=[32, 64, 128], default=64)
    command.set_defaults(run=_convert)

    command = commands.add_parser("evaluate", parents=[model], help="count errors against reference texts")
    command.add_argument("references", help="Kaldi's `text`: a line is a recording's name, then its text")
    command.add_argument("files", nargs="+", metavar="FILE", help="sound files, named as there")
    command.add_argument("--json", action="store_true", help="print the result as JSON")
    command.set_defaults(run=_evaluate)

    command = commands.add_parser("bench", help="time recognition: seconds of computing per second of audio (RTF)")
    command.add_argument("file", nargs="?", metavar="FILE", help="a sound file (default: noise)")
    command.add_argument(
        "--model", metavar="MODEL", help="a folder or hub id (default: Paraformer-large's sizes with random weights)"
    )
    command.add_argument("--seconds", type=float, default=15.0, metavar="N", help="of noise")
    command.add_argument("--batch", type=int, action="append", metavar="N", help="may be repeated (default: 1 and 4)")
    command.add_argument("--rounds", type=int, default=3, metavar="N")
    command.add_argument("--json", action="store_true", help="print the result as JSON")
    command.set_defaults(run=_bench)
    return parser


def _transcribe(args: argparse.Namespace) -> int:
    if args.mic or args.stream:
        return _listen(args)
    files = [Path(file) for file in args.files] or [_demo_clip(args.model)]
    if args.output_dir is not None and args.output_dir.exists() and not args.output_dir.is_dir():
        raise InputError(f"--output-dir {args.output_dir} is a file. Name a folder.")
    several = len(files) > 1
    if several and args.format in ("srt", "vtt", "tsv") and args.output_dir is None:
        raise InputError(f"{len(files)} files as {args.format}: say with --output-dir where to write them.")
    names = [file.stem for file in files]
    if args.output_dir is not None and len(set(names)) < len(names):
        raise InputError("two files have one name, and would be written to one. Rename one, or write them by turns.")
    pipeline = _pipeline(args)
    results = pipeline.transcribe_many(files, on_progress=progress("seconds of audio"), **_options(args))
    status = 0
    for file, result in zip(files, results, strict=True):
        if isinstance(result, MLXCoreError):
            status = fail(result)
        else:
            _write(result, file, args.format, args.output_dir, several)
    return status


def _write(transcript: Transcript, file: Path, name: str, folder: Path | None, several: bool) -> None:
    from mlx_core.files import atomic_file

    from .text import FORMATS

    text = FORMATS[name](transcript)
    if folder is not None:
        target = folder / f"{file.stem}.{'txt' if name == 'text' else name}"
        with atomic_file(target) as temporary:
            temporary.write_text(text, encoding="utf-8")
        note(f"{target}")
    elif several and name == "json":
        print(json.dumps({"file": str(file), **transcript.to_dict()}, ensure_ascii=False), flush=True)
    elif several:
        print(f"{file}\t{text}", end="", flush=True)
    else:
        print(text, end="", flush=True)


def _listen(args: argparse.Namespace) -> int:
    """Print text as it is recognized, of files or of the microphone."""
    from .recognizer import load_model
    from .streaming import StreamingSession

    if args.model is None:
        raise InputError(
            "--stream and --mic need a streaming model (ParaformerStreaming): name its folder or hub id by --model."
        )
    if args.format != "text" or args.output_dir or args.vad or args.punc or args.hotwords:
        raise InputError(
            "--stream and --mic print text alone: --format, --output-dir, --vad, --punc and --hotwords don't go with them."
        )
    session = StreamingSession(load_model(args.model))
    if args.mic:
        return _listen_to_microphone(session)
    step = session.sample_rate * _MIC_BLOCK_MS // 1000
    status = 0
    for file in args.files or [_demo_clip(args.model)]:
        try:
            samples = session.recognizer.samples(file)
        except MLXCoreError as error:
            status = fail(error)
            continue
        shown = ""
        for start in range(0, max(1, len(samples)), step):
            if session.feed(samples[start : start + step], final=start + step >= len(samples)):
                shown = _show(session, shown)
        print(flush=True)
    return status


def _show(session: StreamingSession, shown: str) -> str:
    """Print the new part of the text, or all of it where letters that were shown have become an abbreviation."""
    text = session.text
    if text.startswith(shown):
        print(text[len(shown) :], end="", flush=True)
    else:
        print(("\r\033[K" if sys.stdout.isatty() else "\n") + text, end="", flush=True)
    return text


def _listen_to_microphone(session: StreamingSession) -> int:
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: there is no PortAudio
        raise InputError(
            f'the microphone is read through sounddevice, which can\'t be imported ({error}). Install "funasr-mlx[mic]".'
        ) from error
    note("Listening; Ctrl-C ends.")
    shown = ""
    block = session.sample_rate * _MIC_BLOCK_MS // 1000
    try:
        with sounddevice.InputStream(session.sample_rate, block, channels=1, dtype="float32") as stream:
            while True:
                samples, _ = stream.read(block)
                if session.feed(samples[:, 0]):
                    shown = _show(session, shown)
    except sounddevice.PortAudioError as error:
        raise InputError(f"the microphone can't be read: {error}.") from error
    except KeyboardInterrupt:
        session.feed([], final=True)
        _show(session, shown)
        print(flush=True)
        return 0


def _vad(args: argparse.Namespace) -> int:
    from .demo import demo_recordings
    from .frontend import read_samples
    from .vad import load_vad

    vad = load_vad(_vad_model(args.model))
    thresholds = {
        "max_end_silence_time": args.max_end_silence,
        "max_single_segment_time": args.max_segment,
        "speech_noise_thres": args.threshold,
    }
    files = [Path(file) for file in args.files] or [demo_recordings()[0]]
    status = 0
    for file in files:
        try:
            segments = vad.segment(read_samples(file, vad.frontend.sample_rate), **thresholds)
        except MLXCoreError as error:
            status = fail(error)
            continue
        if args.json:
            print(json.dumps({"file": str(file), "segments_ms": segments}), flush=True)
            continue
        prefix = f"{file}\t" if len(files) > 1 else ""
        for start, end in segments:
            print(f"{prefix}{start}\t{end}", flush=True)
        note(f"{file.name}: {len(segments)} stretches of speech, {sum(b - a for a, b in segments) / 1000:.1f} s")
    return status


def _punctuate(args: argparse.Namespace) -> int:
    from .punctuation import load_punctuation

    punctuation = load_punctuation(args.punc)
    if args.text is not None:
        print(punctuation(args.text))
        return 0
    for line in stdin():
        print(punctuation(line.rstrip("\n")), flush=True)
    return 0


def _convert(args: argparse.Namespace) -> int:
    from .conversion import convert

    network = convert(args.source, args.folder, dtype=args.dtype, bits=args.bits, group_size=args.group_size)
    size = sum(file.stat().st_size for file in Path(args.folder).glob("*.safetensors"))
    print(f"{network.model_type}, {size:,} bytes, written to {args.folder}")
    return 0


def _evaluate(args: argparse.Namespace) -> int:
    from .evaluation import character_error_rate, read_references, word_error_rate

    references = read_references(args.references)
    files = [Path(file) for file in args.files]
    unknown = [str(file) for file in files if file.stem not in references and file.name not in references]
    if unknown:
        raise InputError(f"{args.references} has no text of {', '.join(unknown[:5])}.")
    pipeline = _pipeline(args)
    expected, hypotheses = [], []
    results = pipeline.transcribe_many(files, on_progress=progress("seconds of audio"), **_options(args))
    for file, result in zip(files, results, strict=True):
        if isinstance(result, MLXCoreError):
            raise result
        expected.append(references.get(file.stem, references.get(file.name, "")))
        hypotheses.append(result.text)
    cer, wer = character_error_rate(expected, hypotheses), word_error_rate(expected, hypotheses)
    if args.json:
        print(json.dumps({"cer": cer.__dict__, "wer": wer.__dict__, "recordings": len(files)}))
    else:
        for name, found in (("CER", cer), ("WER", wer)):
            print(
                f"{name} {found.rate:.2%} of {found.total}: {found.substitutions} substituted, {found.deletions} left out, "
                f"{found.insertions} too many"
            )
    return 0


def _bench(args: argparse.Namespace) -> int:
    import numpy as np

    from .bench import bench, random_large_recognizer
    from .recognizer import load_model

    if not 0 < args.seconds <= 3600 or args.rounds < 1 or min(args.batch or (1,)) < 1:
        raise InputError("--seconds must be from 0 to 3600, --rounds and --batch at least 1.")
    recognizer = load_model(args.model) if args.model else random_large_recognizer()
    if args.file:
        samples = recognizer.samples(args.file)
    else:
        noise = np.random.default_rng(0).standard_normal(int(args.seconds * recognizer.sample_rate))
        samples = (0.1 * noise).astype(np.float32)
    timings = [bench(recognizer, samples, batch=size, rounds=args.rounds) for size in args.batch or (1, 4)]
    if args.json:
        print(json.dumps([timing.to_dict() for timing in timings]))
    else:
        for timing in timings:
            print(
                f"{timing.batch} x {timing.seconds:.1f} s: RTF {timing.rtf:.4f}, {1 / timing.rtf:.1f}x real time, "
                f"{timing.peak_memory_bytes / 2**20:,.0f} MiB"
            )
    return 0


def _pipeline(args: argparse.Namespace) -> Pipeline:
    from .demo import demo_paraformer
    from .pipeline import Pipeline
    from .punctuation import load_punctuation
    from .recognizer import load_model
    from .vad import load_vad

    if args.model is None:
        note(
            "no --model: this is the demonstration, a tiny Paraformer that was trained on a few dozen words of synthetic voices."
        )
    return Pipeline(
        load_model(demo_paraformer() if args.model is None else args.model),
        load_vad(_vad_model(args.vad)) if args.vad else None,
        load_punctuation(args.punc) if args.punc else None,
        batch_seconds=args.batch_seconds,
        merge_seconds=args.merge_seconds,
    )


def _options(args: argparse.Namespace) -> dict[str, Any]:
    return {"hotwords": args.hotwords, "language": args.language, "itn": args.itn}


def _vad_model(name: str) -> str | Path:
    """The folder or hub id of the VAD that is named."""
    from .demo import demo_vad

    return demo_vad() if name == _DEMO else name


def _demo_clip(model: str | None) -> Path:
    from .demo import demo_clip, demo_recordings

    return demo_clip() if model is None else demo_recordings()[1]
