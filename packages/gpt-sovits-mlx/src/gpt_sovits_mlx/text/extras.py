"""The error for a language whose optional packages aren't installed."""

from __future__ import annotations

from mlx_core.errors import InputError


class MissingExtraError(InputError, ImportError):
    """A language whose packages aren't installed."""


def missing(language: str, extra: str, error: ImportError) -> MissingExtraError:
    """The error for a language whose extra isn't installed."""
    return MissingExtraError(
        f'{language} needs packages that aren\'t installed ({error}): pip install "gpt-sovits-mlx[{extra}]"'
    )
