"""Characters that stand for others: traditional, full-width, circled, Greek."""

from __future__ import annotations

import string
from functools import cache

from ..resources import data_lines

_FULL_WIDTH = str.maketrans({ord(c) + 0xFEE0: c for c in string.ascii_letters + string.digits})

NUMBERED = dict(zip("①②③④⑤⑥⑦⑧⑨⑩", "一二三四五六七八九十", strict=True))

GREEK = {
    "α": "阿尔法", "β": "贝塔", "γ": "伽玛", "Γ": "伽玛", "δ": "德尔塔", "Δ": "德尔塔", "ε": "艾普西龙", "ζ": "捷塔",
    "η": "依塔", "θ": "西塔", "Θ": "西塔", "ι": "艾欧塔", "κ": "喀帕", "λ": "拉姆达", "Λ": "拉姆达", "μ": "缪", "ν": "拗",
    "ξ": "克西", "Ξ": "克西", "ο": "欧米克伦", "π": "派", "Π": "派", "ρ": "肉", "ς": "西格玛", "Σ": "西格玛",
    "σ": "西格玛", "τ": "套", "υ": "宇普西龙", "φ": "服艾", "Φ": "服艾", "χ": "器", "ψ": "普赛", "Ψ": "普赛",
    "ω": "欧米伽", "Ω": "欧米伽",
}  # fmt: skip


@cache
def _simplified() -> dict[int, str]:
    return {ord(line[0]): line[1:] for line in data_lines("simplified.txt")}


def simplify(text: str) -> str:
    """Traditional characters as simplified ones, character by character (2706 of them)."""
    return text.translate(_simplified())


def half_width(text: str) -> str:
    """Full-width Latin letters and digits as plain ones; other characters stay."""
    return text.translate(_FULL_WIDTH)
