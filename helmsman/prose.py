"""Prose of a model may only repeat what a result holds: checked sentence by sentence before it is read."""

import json
import re
from collections.abc import Iterable, Sequence

from helmsman.turn import Exchange

_SENTENCE = re.compile(r".+?(?:[.!?。](?=\s|$)|\n|$)\s*", re.DOTALL)
_WITH_DIGIT = re.compile(r"[\w.-]*\d[\w.-]*")
_WORD = re.compile(r"[\w-]+")


class Checker:
    """Knows what was said by the person and by results, and which names there are in the cluster."""

    def __init__(self, exchanges: Sequence[Exchange], names: Iterable[str]) -> None:
        self._known = "\n".join(_texts(exchanges)).lower()
        self._names = {n.lower() for n in names if len(n) > 2}

    def holds(self, text: str) -> bool:
        """Whether every number and every name of a thing in `text` was in a result or in the person's words."""
        numbers = (m[0].strip(".-") for m in _WITH_DIGIT.finditer(text.lower()))
        named = (m[0] for m in _WORD.finditer(text.lower()) if m[0] in self._names)
        return all(self._has(token) for token in (*numbers, *named))

    def _has(self, token: str) -> bool:
        # (?!\d) and not \b: Korean writes particles and counters right after a number
        return re.search(rf"(?<![\w.]){re.escape(token)}(?![\d])", self._known) is not None


class Sentences:
    """Collects pieces of prose and gives them on as whole sentences that hold; stops at the first that doesn't."""

    def __init__(self, checker: Checker) -> None:
        self._checker = checker
        self._open = ""
        self.text = ""
        self.broken = False

    def feed(self, piece: str, last: bool = False) -> str:
        """The sentences that are complete with `piece` and hold."""
        self._open += piece
        complete = _SENTENCE.findall(self._open)
        if complete and not last:
            self._open = complete.pop()
        else:
            self._open = ""
        good = ""
        for sentence in complete:
            if self.broken or not self._checker.holds(sentence):
                self.broken = True
                break
            good += sentence
        self.text += good
        return good


def _texts(exchanges: Sequence[Exchange]) -> Iterable[str]:
    for exchange in exchanges:
        yield exchange.user
        for call in (c for step in exchange.steps for c in step.calls):
            yield call.answer
            yield json.dumps([call.arguments, call.data, call.rows], ensure_ascii=False)
