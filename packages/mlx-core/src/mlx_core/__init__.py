"""Shared inference infrastructure for model packages on Apple's MLX.

Names are loaded when they are first used (`__init__.pyi` lists them), so that `mlx_core.text` and `mlx_core.errors`
work where MLX isn't wanted.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
