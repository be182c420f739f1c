"""G, the small model that ships: from a conversation to calls, in process, without torch.

    prompt ─► [tool name] ─► grammar of that tool ─► arguments ─► another call, or the end
                 ▲ its probability is the answer's confidence

The choice of a tool is free among the catalogue's, and shared with a second reader (`prior.py`); what follows is held
to the grammar of that tool. Tokens that the grammar leaves no choice about are appended together with the next free
one, in one forward pass.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from helmsman.models.grammar import MAX_CALLS, grammar
from helmsman.models.prior import Prior
from helmsman.prompts import PSEUDO_CALLS, Answer, Call, ResultRows, Turn
from helmsman.prompts.codec import Codec
from helmsman.prompts.dialect import END_CALL, END_TURN, START_CALL, parse, prompt
from helmsman.prompts.spans import is_nameable, said
from tools.catalogue import catalogue

if TYPE_CHECKING:
    import llguidance
    import onnxruntime_genai

__all__ = ["SHIPPED", "Answer", "Call", "Cancelled", "G", "ResultRows", "Turn"]

SHIPPED = Path(__file__).parents[2] / "weights" / "g"
MAX_PROMPT = 1024
MAX_ANSWER = 512
_CONTEXT = MAX_PROMPT + MAX_ANSWER + 8


class Cancelled(Exception):
    """The person stopped the turn while the model was still answering."""


class G:
    """The loaded model. `generate` may be called from any thread; one call runs at a time."""

    def __init__(self, codec: Codec, model: onnxruntime_genai.Model, prior: Prior | None = None) -> None:
        import llguidance

        self.codec = codec
        self.model = model
        self.prior = prior
        self._lock = threading.Lock()
        self._guide = llguidance.LLTokenizer(codec.tokenizer.to_str(), eos_token=codec.id_of(END_TURN))

    @classmethod
    def load(cls, path: Path = SHIPPED) -> G:
        """From a model's folder: `tokenizer.json` and, below it, `onnx/`. Raises `FileNotFoundError`."""
        import onnxruntime_genai

        if not (path / "onnx" / "genai_config.json").exists():
            raise FileNotFoundError(f"no model in {path}: it should hold tokenizer.json and a folder onnx")
        return cls(Codec.load(path), onnxruntime_genai.Model(str(path / "onnx")), Prior.load(path))

    def generate(
        self, turns: Sequence[Turn], cancel: threading.Event | None = None, offered: frozenset[str] | None = None
    ) -> Answer:
        """The answer to the last turn, with no calls but those `offered` (None: all). Raises `Cancelled` once `cancel`
        is set."""
        with self._lock:
            kept = _fitting(self.codec, turns)
            reader = OnnxReader(self.model)
            return Decoding(reader, self.codec, self._guide, kept, cancel, self.prior, offered).run()

    def length(self, turns: Sequence[Turn]) -> int:
        """How many tokens it reads of them."""
        return len(self.codec.encode(prompt(_fitting(self.codec, turns))))


def _fitting(codec: Codec, turns: Sequence[Turn]) -> list[Turn]:
    """As many of the last turns as the model's context holds; a single line that is too long loses its middle."""
    kept = list(turns)
    while len(codec.encode(prompt(kept))) > MAX_PROMPT:
        if len(kept) > 1:
            kept = kept[1:]
        else:
            third = len(kept[0].user) // 3
            kept = [Turn(f"{kept[0].user[:third]} … {kept[0].user[-third:]}")]
    return kept


class Reader(Protocol):
    """Reads tokens on and on, and says what it thinks comes next."""

    def read(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """The logits (vocabulary,) after all tokens read so far, these last."""


class OnnxReader:
    """One conversation in onnxruntime-genai."""

    def __init__(self, model: onnxruntime_genai.Model) -> None:
        import onnxruntime_genai

        parameters = onnxruntime_genai.GeneratorParams(model)
        parameters.set_search_options(max_length=_CONTEXT, do_sample=False)
        self._generator = onnxruntime_genai.Generator(model, parameters)

    def read(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """See `Reader`."""
        self._generator.append_tokens(np.array(tokens, dtype=np.int32))
        logits: NDArray[np.float32] = np.asarray(self._generator.get_logits(), dtype=np.float32)[0, -1]
        return logits


@dataclass
class Decoding:
    """One answer in the making. `ids` is all that was generated; `unseen` is what the model has not read yet."""

    reader: Reader
    codec: Codec
    guide: llguidance.LLTokenizer
    turns: list[Turn]
    cancel: threading.Event | None = None
    prior: Prior | None = None
    offered: frozenset[str] | None = None
    ids: list[int] = field(default_factory=list)
    unseen: list[int] = field(default_factory=list)
    complete: int = 0
    confidence: float = 1.0

    def run(self) -> Answer:
        """The whole answer."""
        started = time.perf_counter()
        self._start()
        calls = 0
        while calls < MAX_CALLS:
            tool = self._tool(first=calls == 0)
            if not self._arguments(tool):
                break
            calls += 1
            self.complete = len(self.ids)
            if tool in PSEUDO_CALLS or not self._another():
                break
        found = parse(self.codec.decode(self.ids[: self.complete])) if self.complete else [_question(tool)]
        return Answer(found, self.confidence, len(self.ids), (time.perf_counter() - started) * 1000)

    def _start(self) -> None:
        import llguidance.numpy

        self.mask = llguidance.numpy.allocate_token_bitmask(1, self.codec.tokenizer.get_vocab_size())
        self.unseen = self.codec.encode(prompt(self.turns))
        self.spoken = said(self.turns)

    def _say(self, *tokens: int) -> None:
        self.ids += tokens
        self.unseen += tokens

    def _logits(self) -> NDArray[np.float32]:
        """What the model thinks comes next, after all that was said."""
        if self.cancel is not None and self.cancel.is_set():
            raise Cancelled
        unseen, self.unseen = self.unseen, []
        return self.reader.read(unseen)

    def _tool(self, first: bool) -> str:
        self._say(self.codec.id_of(START_CALL), self.codec.id_of("call:"))
        names = self._choosable(first)
        tokens = np.array([self.codec.id_of(name) for name in names])
        scores = self._logits()[tokens]
        if first and self.prior is not None:
            scores = scores + self.prior.opinion(self.turns[-1].user, _tool_before(self.turns), names)
        best = int(np.argmax(scores))
        self.confidence *= float(1 / np.exp(scores - scores[best]).sum())
        self._say(int(tokens[best]))
        return names[best]

    def _choosable(self, first: bool) -> list[str]:
        """The tools that may be called, of those offered. Where nothing was said that a name could be copied from, only
        the decisions."""
        tools = list(catalogue()) if is_nameable(self.spoken) else []
        names = [*PSEUDO_CALLS, *tools] if first or not tools else tools
        return [name for name in names if self.offered is None or name in self.offered] or list(PSEUDO_CALLS)

    def _arguments(self, tool: str) -> bool:
        """Says the arguments up to the end of the call. False when they would not end, or can't be said at all.

        The latter is rare: where a name holds the name of a tool, the tokenizer has one control token for what the
        grammar wants in letters.
        """
        import llguidance

        source = llguidance.LLMatcher.grammar_from_lark(grammar(self.codec, tool, self.spoken))
        matcher = llguidance.LLMatcher(self.guide, source, log_level=0)
        while not matcher.is_stopped() and len(self.ids) <= MAX_ANSWER:
            token = self._next(matcher)
            if token is None or not matcher.consume_token(token):
                return False
            self._say(token)
        return not matcher.is_error() and self.ids[-1] == self.codec.id_of(END_CALL)

    def _next(self, matcher: llguidance.LLMatcher) -> int | None:
        """The best token that the grammar allows; None when it allows none."""
        import llguidance.numpy

        llguidance.numpy.fill_next_token_bitmask(matcher, self.mask)
        allowed = np.flatnonzero(np.unpackbits(self.mask[0].view(np.uint8), bitorder="little"))
        if len(allowed) <= 1:
            return int(allowed[0]) if len(allowed) else None
        return int(allowed[np.argmax(self._logits()[allowed])])

    def _another(self) -> bool:
        """Whether the model goes on with another call; it ends the turn otherwise."""
        more, end = self.codec.id_of(START_CALL), self.codec.id_of(END_TURN)
        logits = self._logits()
        return bool(logits[more] > logits[end])


def _tool_before(turns: Sequence[Turn]) -> str:
    """The last tool of the turn before; nothing at the start of a conversation."""
    return turns[-2].calls[-1].tool if len(turns) > 1 and turns[-2].calls else ""


def _question(tool: str) -> Call:
    """What to say when a call's arguments would not end: a question about its first argument."""
    known = catalogue().get(tool)
    if known is None or not known.arguments:
        return Call("talk")
    return Call("ask", {"for": tool, "about": known.arguments[0].name})
