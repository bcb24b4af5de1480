"""Convolutions as layers, which checkpoints of torch fill: `checkpoint_axes` takes their layout to MLX's."""

from __future__ import annotations

from typing import ClassVar

import mlx.core as mx
import mlx.nn as nn

from ..ops import conv1d, conv2d, conv_transpose1d


class Conv1d(nn.Module):
    """`[B, L, I] -> [B, L_out, O]`; without `bias` where the checkpoint has none. Zero until it is filled."""

    checkpoint_axes: ClassVar[tuple[int, ...]] = (0, 2, 1)  # [O, I, K] -> [O, K, I]

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.weight = mx.zeros((outputs, kernel, inputs // groups))
        if bias:
            self.bias = mx.zeros((outputs,))
        self._options = (stride, padding, dilation, groups)

    def __call__(self, x: mx.array) -> mx.array:
        y = conv1d(x, self.weight, *self._options)
        return y + self.bias if "bias" in self else y

    def windows(self, x: mx.array) -> mx.array:
        """The windows that the kernel is applied to, of one channel without padding: `[B, L, 1] -> [B, L_out, K]`."""
        B, L, _ = x.shape
        kernel, stride = self.weight.shape[1], self._options[0]
        return mx.as_strided(mx.contiguous(x), (B, (L - kernel) // stride + 1, kernel), (L, stride, 1))


class ConvTranspose1d(nn.Module):
    """`[B, L, I] -> [B, (L - 1) stride + kernel - 2 padding, O]`."""

    checkpoint_axes: ClassVar[tuple[int, ...]] = (1, 2, 0)  # [I, O, K] -> [O, K, I]

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int, padding: int) -> None:
        super().__init__()
        self.weight = mx.zeros((outputs, kernel, inputs))
        self.bias = mx.zeros((outputs,))
        self._options = (stride, padding)

    def __call__(self, x: mx.array) -> mx.array:
        return conv_transpose1d(x, self.weight, *self._options) + self.bias


class Conv2d(nn.Module):
    """`[B, H, W, I] -> [B, H_out, W_out, O]`."""

    checkpoint_axes: ClassVar[tuple[int, ...]] = (0, 2, 3, 1)  # [O, I, KH, KW] -> [O, KH, KW, I]

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, padding: int = 0, bias: bool = True
    ) -> None:
        super().__init__()
        self.weight = mx.zeros((outputs, kernel, kernel, inputs))
        if bias:
            self.bias = mx.zeros((outputs,))
        self._options = (stride, padding)

    def __call__(self, x: mx.array) -> mx.array:
        y = conv2d(x, self.weight, *self._options)
        return y + self.bias if "bias" in self else y
