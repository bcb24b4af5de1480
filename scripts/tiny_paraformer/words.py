"""The vocabulary: English words, whole or in pieces that `@@` joins, and Chinese ones, a token for each character."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np


class Word(NamedTuple):
    """A word as its tokens, and as espeak-ng is told to say it."""

    tokens: tuple[str, ...]
    spoken: str


_ENGLISH = """
    zero one two three four five six seven eight nine
    red green blue yellow black white orange purple
    mon@@-day tues@@-day wednes@@-day thurs@@-day fri@@-day satur@@-day sun@@-day
    january february march april june july august septem@@-ber octo@@-ber novem@@-ber decem@@-ber
    yes no stop go left right up down open close start play music light door window
"""
# Debian's espeak-ng knows few Chinese characters, but pinyin with the numbers of the tones.
_CHINESE = """
    零/ling2 一/yi1 二/er4 三/san1 四/si4 五/wu3 六/liu4 七/qi1 八/ba1 九/jiu3 十/shi2
    你好/ni3hao3 中国/zhong1guo2 北京/bei3jing1 音乐/yin1yue4 今天/jin1tian1 明天/ming2tian1 打开/da3kai1
    关闭/guan1bi4 谢谢/xie4xie4 再见/zai4jian4
"""

ENGLISH = [Word(tuple(word.split("-")), word.replace("-", "").replace("@@", "")) for word in _ENGLISH.split()]
CHINESE = [Word(tuple(word.split("/")[0]), word.split("/")[1]) for word in _CHINESE.split()]

# As in FunASR's lists: a blank, the ends of a sentence, and the unknown last.
TOKENS = [
    "<blank>",
    "<s>",
    "</s>",
    *dict.fromkeys(token for word in ENGLISH + CHINESE for token in word.tokens),
    "<unk>",
]
_IDS = {token: number for number, token in enumerate(TOKENS)}


def ids(words: Iterable[Word]) -> list[int]:
    """The tokens of words."""
    return [_IDS[token] for word in words for token in word.tokens]


def sentence(rng: np.random.Generator, words: list[Word], most: int = 6) -> list[Word]:
    """From one word to `most`, any of them."""
    return [words[i] for i in rng.integers(len(words), size=rng.integers(1, most + 1))]
