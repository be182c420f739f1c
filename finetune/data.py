"""The stream of training examples: authored requests, multiplied. The same seed gives the same examples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random

from finetune.names import Names
from finetune.realise import Realised, Unusable, realise
from finetune.stock import stock
from finetune.utterances import Dialogue, Mark, Request, Segment, read
from helmsman.prompts import PSEUDO_CALLS, Call, Turn
from helmsman.prompts.dialect import MAX_TURNS

CORE = {
    "list_sessions", "get_session", "start_session", "terminate_sessions", "get_session_logs", "explain_pending",
    "list_nodes", "get_node", "cordon_node", "uncordon_node", "drain_node", "get_cluster_status", "list_folders",
    "create_folder", "delete_folder", "restore_folder", "get_quota", "undo",
}  # fmt: skip
"""The tools that are built first; their requests are drawn more often."""


@dataclass(frozen=True)
class Example:
    """One training example: a conversation whose last turn is open, and what the model should answer."""

    lang: str
    turns: list[Turn]
    answer: list[Call]


class Generator:
    """Draws examples without end from the dialogues given."""

    def __init__(self, dialogues: Sequence[Dialogue], names: Names) -> None:
        self.dialogues = [d for d in dialogues if _usable(d, names)]
        self.names = names
        self._singles = [d for d in self.dialogues if len(d.requests) == 1]
        self._joinable = [d for d in self._singles if _is_joinable(d.requests[0])]
        self._weights = [_weight(d) for d in self.dialogues]

    @classmethod
    def training(cls) -> Generator:
        """Over all authored dialogues but the held-out ones."""
        kept = [d for d in read() if not d.held_out]
        return cls(kept, Names(kept))

    def stream(self, seed: int) -> Iterator[Example]:
        """Examples without end."""
        rng = Random(seed)
        while True:
            yield self.draw(rng)

    def draw(self, rng: Random) -> Example:
        """One example."""
        while True:
            try:
                return self._draw(rng)
            except Unusable:
                continue

    def _draw(self, rng: Random) -> Example:
        if rng.random() < 0.06:
            return self._joined(rng)
        dialogue = rng.choices(self.dialogues, self._weights)[0]
        realised = realise(dialogue, self.names, rng)
        last = rng.randrange(len(realised.turns)) if rng.random() < 0.3 else len(realised.turns) - 1
        example = _cut(realised, last)
        return self._with_past(example, rng) if len(example.turns) == 1 and rng.random() < 0.07 else example

    def _with_past(self, example: Example, rng: Random) -> Example:
        """The same request after one or two others that have nothing to do with it."""
        past = [realise(rng.choice(self._singles), self.names, rng).turns[0] for _ in range(rng.choice([1, 1, 2]))]
        return replace(example, turns=[*past, *example.turns])

    def _joined(self, rng: Random) -> Example:
        first = rng.choice(self._joinable)
        lang = "en" if first.requests[0].lang == "en" else "ko"
        second = rng.choice(self._joinable)
        while (second.requests[0].lang == "en") != (lang == "en"):
            second = rng.choice(self._joinable)
        joined = join(first.requests[0], second.requests[0], rng.choice(stock().manners.joints[lang]))
        return _cut(realise(Dialogue("joined", (joined,)), self.names, rng), 0)


def authored(dialogues: Sequence[Dialogue], names: Names, seed: int = 0) -> Iterator[Example]:
    """Every turn of the dialogues as it was written, nothing exchanged: what held-out dialogues are judged on."""
    rng = Random(seed)
    for dialogue in dialogues:
        try:
            realised = realise(dialogue, names, rng, augment=False)
        except Unusable:
            continue
        for last in range(len(realised.turns)):
            yield _cut(realised, last)


def join(first: Request, second: Request, joint: str) -> Request:
    """Two requests as one sentence that asks for both."""
    head = list(first.segments)
    if head and head[-1].mark is None:
        head[-1] = replace(head[-1], text=head[-1].text.rstrip(" .!?~"))
    shift = len(first.tools)
    tail = [replace(s, mark=_shifted(s.mark, shift)) for s in second.segments]
    fixed = first.fixed | {f"{shift + _number(k)}.{k.rpartition('.')[2]}": v for k, v in second.fixed.items()}
    tools = first.tools + second.tools
    return Request(first.lang, tools, (*head, Segment(joint), *tail), fixed)


def _number(key: str) -> int:
    return int(key.rpartition(".")[0] or 0)


def _shifted(mark: Mark | None, by: int) -> Mark | None:
    return mark and replace(mark, call=mark.call + by)


def _cut(realised: Realised, last: int) -> Example:
    past = realised.turns[max(0, last + 1 - MAX_TURNS) : last]
    return Example(realised.lang, [*past, Turn(realised.turns[last].user)], realised.answers[last])


def _is_joinable(request: Request) -> bool:
    return request.tools[0] not in PSEUDO_CALLS and len(request.tools) == 1 and len(request.text) < 70


def _usable(dialogue: Dialogue, names: Names) -> bool:
    try:
        realise(dialogue, names, Random(0), augment=False)
    except (Unusable, ValueError):
        return False
    return True


def _weight(dialogue: Dialogue) -> float:
    last = dialogue.requests[-1]
    weight = 1.0
    if last.tools[0] in PSEUDO_CALLS:
        weight = 3.5
    elif len(dialogue.requests) > 1 or len(last.tools) > 1:
        weight = 2.0
    if set(last.tools) & CORE:
        weight *= 3.5
    return weight * (1.5 if dialogue.hand.startswith("own") else 1.0)
