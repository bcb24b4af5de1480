"""The parts of `scripts/fuzz.py`: changes of bytes, values, formats and programs, and the readers that get the results."""
