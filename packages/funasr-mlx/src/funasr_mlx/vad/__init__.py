"""Voice activity detection: FSMN-VAD, of whole recordings and of streams."""

from .detector import Detector, VADOptions
from .model import SILENCE_SCHEDULE, VAD, VADStream, load_vad, merge_segments

__all__ = ["SILENCE_SCHEDULE", "VAD", "Detector", "VADOptions", "VADStream", "load_vad", "merge_segments"]
