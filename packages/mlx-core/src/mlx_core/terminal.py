"""Shared by all commands: running one, its exit status, notes and progress on stderr (results go to stdout)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import TextIO

from .errors import InputError, MLXCoreError

EXIT_ERROR, EXIT_INTERRUPTED = 1, 130


def run_command(parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> int:
    """Parse the arguments (None: those of the process) and call the function that the command set as `run`.

    Returns the exit status: that of `run`, 1 for an error (printed on stderr), 130 for Ctrl-C. Wrong usage exits with 2.
    """
    args = parser.parse_args(arguments)
    return exit_status(lambda: args.run(args))


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Add --json, which every command with a result takes."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def exit_status(action: Callable[[], int]) -> int:
    """Call `action` and return its exit status: 1 for an error (printed on stderr), 130 for Ctrl-C."""
    try:
        return int(action())
    except MLXCoreError as error:
        return fail(error)
    except KeyboardInterrupt:
        note("interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of the output has closed it
        sys.stderr.close()
        return EXIT_ERROR
    except (OSError, UnicodeError) as error:  # of standard input or output: a full disk, another encoding
        return fail(error)


def note(text: str) -> None:
    """Print a line on stderr."""
    if sys.stderr is None:  # closed; print would use standard output instead
        return
    print(text, file=sys.stderr, flush=True)


def fail(error: Exception) -> int:
    """Print an error on stderr; returns the exit status for it."""
    note(f"error: {error}")
    return EXIT_ERROR


def stdin() -> TextIO:
    """Standard input. Raises InputError where it is closed."""
    if sys.stdin is None:
        raise InputError("standard input is closed.")
    return sys.stdin


def progress(unit: str, minimum: float = 0) -> Callable[[float, float], None]:
    """A callback (done, total) that shows progress in `unit` on a terminal, for totals above `minimum`."""

    def show(done: float, total: float) -> None:
        if sys.stderr is not None and sys.stderr.isatty() and total > minimum:
            end = "\r" if done < total else "\r\033[K"
            text = f"{done:,.0f} of {total:,.0f} {unit}" if done < total else ""
            print(text, end=end, file=sys.stderr, flush=True)

    return show
