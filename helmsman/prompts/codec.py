"""Between pieces of model text and token ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Tokenizer

from helmsman.prompts.conversation import PSEUDO_CALLS
from helmsman.prompts.dialect import (
    BOS,
    END_CALL,
    END_RESULT,
    END_TURN,
    EOS,
    ESCAPE,
    PAD,
    START_CALL,
    START_RESULT,
    START_TURN,
    Piece,
)  # fmt: skip
from tools.catalogue import catalogue


def control_tokens() -> list[str]:
    """Every control token: FunctionGemma's, then the names of tools and the keys of arguments, one token each."""
    keys = {f"{a.name}:": None for tool in catalogue().values() for a in tool.arguments}
    keys |= {f"{key}:": None for names in PSEUDO_CALLS.values() for key in names}
    return [
        PAD, EOS, BOS, START_TURN, END_TURN, START_CALL, END_CALL, START_RESULT, END_RESULT, ESCAPE,
        "user\n", "model\n", "call:", *PSEUDO_CALLS, *catalogue(), *keys,
    ]  # fmt: skip


class Codec:
    """A tokenizer that reads control tokens in control pieces only. Not for concurrent use."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    @classmethod
    def load(cls, folder: Path) -> Codec:
        """From a model's folder, which holds `tokenizer.json`."""
        return cls(Tokenizer.from_file(str(folder / "tokenizer.json")))

    def encode(self, pieces: Iterable[Piece]) -> list[int]:
        """The token ids of all pieces, one after the other."""
        ids: list[int] = []
        for piece in pieces:
            self.tokenizer.encode_special_tokens = not piece.control
            ids += self.tokenizer.encode(piece.text, add_special_tokens=False).ids
        return ids

    def encode_plain(self, text: str) -> list[int]:
        """The token ids of somebody's words, in which control tokens are mere letters."""
        return self.encode([Piece(text, False)])

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, control tokens included."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False))

    def id_of(self, token: str) -> int:
        """The id of one control token."""
        found = self.tokenizer.token_to_id(token)
        if found is None:
            raise KeyError(f"the tokenizer has no token {token!r}; it belongs to another version of the catalogue")
        return int(found)
