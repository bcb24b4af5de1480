"""SoVITS's prior encoder: from semantic tokens, phones and a voice to the latents' means and deviations.

Names are the checkpoint's, whose 1x1 convolutions these are. `B` batch, `T` frames or phones, `C` channels, `W` the
window of relative positions, `ge` the voice.

Papers: https://arxiv.org/abs/2106.06103 (VITS), https://arxiv.org/abs/1803.02155 (relative positions), the cross
attention of tokens and phones ("MRTE") after https://arxiv.org/abs/2306.03509. Reference: GPT-SoVITS,
`module/{models,attentions,mrte_model}.py`.
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from mlx_core.models import Conv1d
from mlx_core.ops import merge_heads, multi_head, split_heads

WINDOW = 4
SSL_WIDTH = 768
MRTE_WIDTH = 512
_MRTE_HEADS = 4


class ChannelLayerNorm(nn.Module):
    """Layer norm under VITS's names."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma, self.beta = mx.ones((channels,)), mx.zeros((channels,))

    def __call__(self, x: mx.array) -> mx.array:
        return mx.fast.layer_norm(x, self.gamma, self.beta, 1e-5)


class Attention(nn.Module):
    """Attention of `x` to `context`, with learnt relative positions up to `window` apart where there is one."""

    def __init__(self, channels: int, heads: int, window: int | None = None) -> None:
        super().__init__()
        self._heads, self._window = heads, window
        for name in ("conv_q", "conv_k", "conv_v", "conv_o"):
            self[name] = Conv1d(channels, channels, 1)
        if window is not None:
            self.emb_rel_k = mx.zeros((1, 2 * window + 1, channels // heads))  # shared by the heads
            self.emb_rel_v = mx.zeros((1, 2 * window + 1, channels // heads))

    def __call__(self, x: mx.array, context: mx.array) -> mx.array:
        """`[B, T, C]`, `[B, S, C] -> [B, T, C]`."""
        q, k, v = self.conv_q(x), self.conv_k(context), self.conv_v(context)
        if self._window is None:
            return self.conv_o(multi_head(q, k, v, self._heads))
        q, k, v = (split_heads(y, self._heads) for y in (q, k, v))  # [B, H, T or S, C / H]
        q = q * q.shape[-1] ** -0.5
        near = q @ self.emb_rel_k[0].T  # [B, H, T, 2 W + 1]: the query at i with the position j - i
        weights = mx.softmax(q @ k.swapaxes(-1, -2) + spread(near, self._window), axis=-1, precise=True)
        out = weights @ v + gather(weights, self._window) @ self.emb_rel_v[0]
        return self.conv_o(merge_heads(out))


def spread(near: mx.array, window: int) -> mx.array:
    """`[..., T, 2 W + 1]`, for each i the values at j = i - W ... i + W -> `[..., T, T]`, zero elsewhere.

    Rows of T + 2 W + 1 read as rows of T + 2 W move to the right by one from row to row.
    """
    *batch, T, width = near.shape
    padded = mx.pad(near, [(0, 0)] * (near.ndim - 1) + [(0, T)])
    rows = padded.reshape(*batch, -1)[..., : T * (T + width - 1)].reshape(*batch, T, T + width - 1)
    return rows[..., window : window + T]


def gather(square: mx.array, window: int) -> mx.array:
    """The inverse of `spread`: `[..., T, T] -> [..., T, 2 W + 1]`, zero where j is outside."""
    *batch, T, _ = square.shape
    width = 2 * window + 1
    ends = [(0, 0)] * (square.ndim - 1)
    rows = mx.pad(square, [*ends, (window, window)]).reshape(*batch, -1)
    rows = mx.pad(rows, [(0, 0)] * len(batch) + [(0, T)])
    return rows.reshape(*batch, T, T + width)[..., :width]


class FeedForward(nn.Module):
    def __init__(self, channels: int, filter_channels: int, kernel: int) -> None:
        super().__init__()
        # an even kernel sees one frame more on its right
        self._padding = ((kernel - 1) // 2, kernel // 2)
        self.conv_1 = Conv1d(channels, filter_channels, kernel)
        self.conv_2 = Conv1d(filter_channels, channels, kernel)

    def __call__(self, x: mx.array) -> mx.array:
        around = [(0, 0), self._padding, (0, 0)]
        return self.conv_2(mx.pad(nn.relu(self.conv_1(mx.pad(x, around))), around))


class Encoder(nn.Module):
    """A post-norm transformer with relative positions."""

    def __init__(self, channels: int, filter_channels: int, heads: int, layers: int, kernel: int) -> None:
        super().__init__()
        self.attn_layers = [Attention(channels, heads, WINDOW) for _ in range(layers)]
        self.norm_layers_1 = [ChannelLayerNorm(channels) for _ in range(layers)]
        self.ffn_layers = [FeedForward(channels, filter_channels, kernel) for _ in range(layers)]
        self.norm_layers_2 = [ChannelLayerNorm(channels) for _ in range(layers)]

    def __call__(self, x: mx.array) -> mx.array:
        layers = zip(self.attn_layers, self.norm_layers_1, self.ffn_layers, self.norm_layers_2, strict=True)
        for attention, norm_1, feed_forward, norm_2 in layers:
            x = norm_1(x + attention(x, x))
            x = norm_2(x + feed_forward(x))
        return x


class CrossAttention(nn.Module):
    """Cross-attention of tokens to phones, with the voice added ("MRTE")."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cross_attention = Attention(MRTE_WIDTH, _MRTE_HEADS)
        self.c_pre = Conv1d(channels, MRTE_WIDTH, 1)
        self.text_pre = Conv1d(channels, MRTE_WIDTH, 1)
        self.c_post = Conv1d(MRTE_WIDTH, channels, 1)

    def __call__(self, x: mx.array, text: mx.array, ge: mx.array) -> mx.array:
        """Tokens `[B, T, C]`, phones `[B, S, C]`, voice `[B, 1, 512] -> [B, T, C]`."""
        x = self.c_pre(x)
        return self.c_post(self.cross_attention(x, self.text_pre(text)) + x + ge)


class PriorEncoder(nn.Module):
    """`enc_p`."""

    def __init__(
        self, symbols: int, channels: int, filter_channels: int, heads: int, layers: int, kernel: int, outputs: int
    ) -> None:
        super().__init__()
        self.ssl_proj = Conv1d(SSL_WIDTH, channels, 1)
        self.encoder_ssl = Encoder(channels, filter_channels, heads, layers // 2, kernel)
        self.text_embedding = nn.Embedding(symbols, channels)
        self.encoder_text = Encoder(channels, filter_channels, heads, layers, kernel)
        self.mrte = CrossAttention(channels)
        self.encoder2 = Encoder(channels, filter_channels, heads, layers // 2, kernel)
        self.proj = Conv1d(channels, 2 * outputs, 1)

    def text(self, phones: mx.array) -> mx.array:
        """Phones `[B, S]` int -> `[B, S, C]`."""
        return self.encoder_text(self.text_embedding(phones))

    def latent(self, ssl: mx.array, text: mx.array, ge: mx.array) -> mx.array:
        """Quantised features `[B, T, 768]`, `text`, voice `[B, 1, 512] -> [B, T, C]`."""
        return self.encoder2(self.mrte(self.encoder_ssl(self.ssl_proj(ssl)), text, ge))

    def statistics(self, latent: mx.array, speed: float) -> tuple[mx.array, mx.array]:
        """Latent `[B, T, C]` -> means and logarithms of deviations, as long as `at_speed` makes it."""
        mean, log_deviation = mx.split(self.proj(at_speed(latent, speed)), 2, axis=-1)
        return mean, log_deviation


def at_speed(latent: mx.array, speed: float) -> mx.array:
    """`[B, T, C] -> [B, int(T / speed) + 1, C]`, but T frames at speed 1."""
    return latent if speed == 1 else resize(latent, int(latent.shape[1] / speed) + 1)


def resize(x: mx.array, length: int) -> mx.array:
    """`[B, T, C] -> [B, length, C]`, linear between the middles of frames (`align_corners` false)."""
    T = x.shape[1]
    places = mx.maximum((mx.arange(length, dtype=mx.float32) + 0.5) * (T / length) - 0.5, 0)
    left = mx.minimum(mx.floor(places).astype(mx.int32), T - 1)
    right = mx.minimum(left + 1, T - 1)
    share = (places - left)[:, None].astype(x.dtype)
    return x[:, left] * (1 - share) + x[:, right] * share
