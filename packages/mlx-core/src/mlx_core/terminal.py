"""What every command does alike: results on stdout, notes and progress on stderr, an exit status for each end."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TextIO

from .errors import InputError, MLXCoreError

EXIT_ERROR, EXIT_INTERRUPTED = 1, 130


def exit_status(action: Callable[[], int]) -> int:
    """Run a command; returns its exit status: 1 for an error (printed on stderr), 130 for Ctrl-C."""
    try:
        return int(action())
    except MLXCoreError as error:
        return fail(error)
    except KeyboardInterrupt:
        note("interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output has left
        sys.stderr.close()
        return EXIT_ERROR
    except (OSError, UnicodeError) as error:  # of standard input or output: a full disk, another encoding
        return fail(error)


def note(text: str) -> None:
    """A line on stderr."""
    if sys.stderr is None:  # closed; print would take standard output instead
        return
    print(text, file=sys.stderr, flush=True)


def fail(error: Exception) -> int:
    """An error on stderr; returns the exit status for it."""
    note(f"error: {error}")
    return EXIT_ERROR


def stdin() -> TextIO:
    """Standard input. Raises InputError where it is closed."""
    if sys.stdin is None:
        raise InputError("standard input is closed.")
    return sys.stdin


def progress(unit: str, least: float = 0) -> Callable[[float, float], None]:
    """Shows how far something long has come, on terminals; what is shorter than `least` isn't worth it."""

    def show(done: float, total: float) -> None:
        if sys.stderr is not None and sys.stderr.isatty() and total > least:
            end = "\r" if done < total else "\r\033[K"
            text = f"{done:,.0f} of {total:,.0f} {unit}" if done < total else ""
            print(text, end=end, file=sys.stderr, flush=True)

    return show
