"""Amounts that were said per node, as the totals that the cluster counts in."""

from collections.abc import Mapping

from pydantic import model_validator

from cluster.units import format_size, parse_size
from tools.base import Arguments
from tools.linking.numbers import number


class InTotal(Arguments):
    """Base of arguments in which amounts may be said per node."""

    @model_validator(mode="before")
    @classmethod
    def _totals(cls, raw: object) -> object:
        return fold(raw)


PER_NODE = ("cpu", "memory", "gpu")


def fold(raw: object) -> object:
    """Replace `gpu_per_node` … by `gpu` … times `node_count`; a total that was given too must agree.

    Raises ValueError with one sentence when it does not.
    """
    if not isinstance(raw, Mapping):
        return raw
    folded = dict(raw)
    count = folded.get("node_count") or 1
    for word in PER_NODE:
        each = folded.pop(f"{word}_per_node", None)
        if each is None:
            continue
        total = _times(word, each, count)
        if folded.get(word) not in (None, total):
            raise ValueError(f"{word} is given twice, as {folded[word]} in all and as {each} on each of {count} nodes")
        folded[word] = total
    return folded


def _times(word: str, each: object, count: int) -> object:
    if word != "memory":
        return float(number(float(str(each)) * count))
    return str(each) if count == 1 else format_size(parse_size(str(each)) * count)
