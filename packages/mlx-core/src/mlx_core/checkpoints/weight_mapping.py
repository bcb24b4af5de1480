"""Rules that rename a checkpoint's tensors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import mlx.core as mx

from ..errors import ConversionError


class Rule(NamedTuple):
    """The new name, and maybe a transform, for the tensors whose whole name `pattern` (a regular expression) matches.

    target: the new name, with the pattern's groups as `\\1` or `\\g<name>`; None drops the tensor. transform: applied
    to the tensor, for instance a transposition.
    """

    pattern: str
    target: str | None
    transform: Callable[[mx.array], mx.array] | None = None


@dataclass(frozen=True)
class WeightMapping:
    """Rules, of which the first that matches a name applies. A name that none matches stays as it is, or is an error
    with `strict`.

        mapping = WeightMapping([
            Rule(r"transformer\\.h\\.(\\d+)\\.(.+)", r"model.layers.\\1.\\2"),
            Rule(r".+\\.num_batches_tracked", None),
        ])
        weights = mapping(weights)
    """

    rules: Iterable[Rule]
    strict: bool = False

    def __post_init__(self) -> None:
        rules = tuple(Rule(*rule) for rule in self.rules)
        for rule in rules:
            try:
                re.compile(rule.pattern).sub(rule.target or "", "")  # this parses the target, too
            except (re.error, TypeError, IndexError) as error:
                raise ConversionError(f"the rule {rule.pattern!r} -> {rule.target!r} is wrong: {error}.") from error
        object.__setattr__(self, "rules", rules)

    def __call__(self, weights: Mapping[str, mx.array]) -> dict[str, mx.array]:
        """The tensors under their new names, lazily. Raises ConversionError where two get the same name, or, if
        `strict`, where no rule matches one.
        """
        result: dict[str, mx.array] = {}
        origins: dict[str, str] = {}
        for name, value in weights.items():
            target: str | None = name
            matches = ((rule, match) for rule in self.rules if (match := re.fullmatch(rule.pattern, name)))
            rule, match = next(matches, (None, None))
            if rule is not None and match is not None:
                target = None if rule.target is None else match.expand(rule.target)
            elif self.strict:
                raise ConversionError(f"no rule matches tensor {name!r}: add one, which may drop it.")
            if target is None:
                continue
            if target in result:
                raise ConversionError(f"tensors {origins[target]!r} and {name!r} would both become {target!r}.")
            result[target] = value if rule is None or rule.transform is None else rule.transform(value)
            origins[target] = name
        return result
