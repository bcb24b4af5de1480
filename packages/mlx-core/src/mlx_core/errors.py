"""The exceptions that the packages raise on purpose.

    MLXCoreError
    ├── InputError         ValueError         an argument: prompt, tokens, sampling parameter
    ├── ConfigError        ValueError         config.json: a missing, contradictory or unsupported entry
    ├── WeightsError       ValueError         a checkpoint's tensors: unreadable, missing, of the wrong shape
    │   └── MissingCheckpointError  FileNotFoundError   there is no checkpoint where one was expected
    ├── HubError           OSError            a model id that can't be fetched
    ├── TokenizerError     ValueError         tokenizer files and chat templates
    ├── CacheError         ValueError         keys and values that don't fit a cache
    ├── ConversionError    ValueError         a checkpoint that can't be converted or written
    ├── AudioError         ValueError         samples and sound files
    ├── EngineError        RuntimeError       an engine that can't run a model
    └── BackendError       RuntimeError       an operation that the device, or its backend, doesn't have
        └── MissingBackendError     ImportError         MLX has no libmlx for this platform

The second column is the builtin that each class also derives from, so that code which doesn't know this tree can catch
it. A message says what went wrong, what was expected, what was found and what to do.
"""

from __future__ import annotations


class MLXCoreError(Exception):
    """Base of every error that the packages raise on purpose."""


class InputError(MLXCoreError, ValueError):
    """An argument of the wrong type, shape or range."""


class ConfigError(MLXCoreError, ValueError):
    """A model configuration with a missing, contradictory or unsupported entry."""


class WeightsError(MLXCoreError, ValueError):
    """A checkpoint whose tensors are unreadable, missing or of the wrong shape."""


class MissingCheckpointError(WeightsError, FileNotFoundError):
    """There is no checkpoint where one was expected."""


class HubError(MLXCoreError, OSError):
    """A model id that can't be fetched, or isn't in the local cache while offline."""


class TokenizerError(MLXCoreError, ValueError):
    """A tokenizer or chat template that can't be read, or text that it can't handle."""


class CacheError(MLXCoreError, ValueError):
    """Keys and values that don't fit a cache, or an operation that a cache doesn't have."""


class ConversionError(MLXCoreError, ValueError):
    """A checkpoint that can't be converted or written."""


class AudioError(MLXCoreError, ValueError):
    """Samples or a sound file that can't be used."""


class EngineError(MLXCoreError, RuntimeError):
    """An engine that can't run a model, or a block that can't be described to one."""


class BackendError(MLXCoreError, RuntimeError):
    """An operation or setting that the device, or its backend, doesn't support."""


class MissingBackendError(BackendError, ImportError):
    """MLX is installed without the library that it needs on this platform."""
