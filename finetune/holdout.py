"""Writes the held-out requests as cases for `evals.calls`: `python -m finetune.holdout OUT.jsonl`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from finetune.data import Example, authored
from finetune.names import Names
from finetune.utterances import read
from helmsman.prompts import Call
from helmsman.prompts.dialect import answer, parse, text


def case(number: int, example: Example) -> dict[str, Any]:
    """One example in the form of `evals.calls`; all but its last turn are context."""
    past = [
        {
            "text": turn.user,
            "calls": [_row(c) for c in turn.calls],
            "results": [{"tool": r.tool, "names": r.names} for r in turn.results],
        }
        for turn in example.turns[:-1]
    ]
    expected = [_row(c) for c in parse(text(answer(example.answer)))]
    return {
        "id": f"held-{number:04}",
        "lang": example.lang,
        "turns": [*past, example.turns[-1].user],
        "expect": [expected],
    }


def _row(call: Call) -> dict[str, Any]:
    return {"tool": call.tool, "arguments": call.arguments}


def main() -> None:
    """Writes the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    out: Path = parser.parse_args().out
    dialogues = read()
    held = [d for d in dialogues if d.held_out]
    examples = authored(held, Names(d for d in dialogues if not d.held_out))
    lines = [json.dumps(case(i, e), ensure_ascii=False) for i, e in enumerate(examples, 1)]
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(lines)} cases written to {out}")


if __name__ == "__main__":
    main()
