"""What `train_tiny_paraformer.py` learns from: words, voices, and how they are mixed."""
