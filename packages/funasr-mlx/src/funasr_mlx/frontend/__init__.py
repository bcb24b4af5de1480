"""The front end: recordings -> samples -> features, whole or piece by piece."""

from mlx_core.audio.samples import AnySamples, Samples

from .features import Frontend, FrontendConfig, as_features, make_frontend, read_mvn
from .online import OnlineFrontend
from .samples import Audio, mono_samples, read_samples

__all__ = [
    "AnySamples",
    "Audio",
    "Frontend",
    "FrontendConfig",
    "OnlineFrontend",
    "Samples",
    "as_features",
    "make_frontend",
    "mono_samples",
    "read_mvn",
    "read_samples",
]
