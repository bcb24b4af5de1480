"""Record the filter banks that kaldi-native-fbank makes.

Run in an environment with kaldi-native-fbank, numpy and safetensors:

    python scripts/record_golden/fbank.py --out packages/mlx-core/tests/goldens/audio
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
from pathlib import Path

import kaldi_native_fbank as knf
import numpy as np
from safetensors.numpy import save_file

SEED = 61
SAMPLES = 6037

# window, rate, bands, frame and shift in ms, lowest and highest Hz (0: half the rate), scale
SETTINGS: dict[str, tuple[str, int, int, float, float, float, float, float]] = {
    "funasr": ("hamming", 16000, 80, 25, 10, 20, 0, 32768),
    "speaker": ("povey", 16000, 80, 25, 10, 20, 0, 1),
    "telephone": ("hanning", 8000, 23, 25, 10, 64, 3800, 32768),
    "long_frames": ("rectangular", 16000, 40, 32, 12.5, 0, 7600, 1),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    rng = np.random.default_rng(SEED)
    time = np.arange(SAMPLES) / 16000
    # a gliding tone over noise, and an offset, which frames lose
    samples = 0.3 * np.sin(2 * np.pi * (200 + 4000 * time) * time) + 0.01 * rng.standard_normal(SAMPLES) + 0.05
    tensors = {"samples": samples.astype(np.float32)}
    for name, (window, rate, bands, frame, shift, low, high, scale) in SETTINGS.items():
        options = knf.FbankOptions()
        options.frame_opts.samp_freq, options.frame_opts.dither = rate, 0.0
        options.frame_opts.window_type = window
        options.frame_opts.frame_length_ms, options.frame_opts.frame_shift_ms = frame, shift
        options.frame_opts.snip_edges = True
        options.mel_opts.num_bins, options.mel_opts.low_freq, options.mel_opts.high_freq = bands, low, high
        options.energy_floor = 0.0
        fbank = knf.OnlineFbank(options)
        fbank.accept_waveform(rate, tensors["samples"] * np.float32(scale))
        fbank.input_finished()
        tensors[name] = np.stack([fbank.get_frame(i) for i in range(fbank.num_frames_ready)])
    version = importlib.metadata.version("kaldi-native-fbank")
    save_file(tensors, out / "fbank.safetensors", {"settings": json.dumps(SETTINGS), "kaldi_native_fbank": version})


if __name__ == "__main__":
    main()
