"""Parts of `scripts/fuzz.py`: mutations of bytes, values, formats and programs, and the targets that read them."""
