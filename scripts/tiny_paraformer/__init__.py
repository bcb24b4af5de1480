"""The training data of `train_tiny_paraformer.py`: words, voices, and their mixtures."""
