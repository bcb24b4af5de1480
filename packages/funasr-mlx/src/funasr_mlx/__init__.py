"""FunASR's speech recognition on Apple's MLX."""
