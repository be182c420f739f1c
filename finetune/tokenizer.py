"""Trains G's tokenizer: byte-level BPE over people's words, in which names fall into small pieces.

Names must be copied token by token, so a name has to fall into the same tokens wherever it stands: words that look
like identifiers (`exp-12`, `a100.03`) are split into characters, Hangul and ASCII never share a token, and the merges
are learned from text out of which all names were taken, so that a name's letters seldom have a merge of their own.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from finetune.utterances import Dialogue, Request, read
from helmsman.prompts.codec import control_tokens
from helmsman.prompts.dialect import PAD
from tools.catalogue import catalogue

VOCABULARY = 6016
MIN_FREQUENCY = 14
_ASCII = r"A-Za-z0-9À-ɏ_./:@=+#%$&*~^\\-"
_HANGUL = r"가-힣ㄱ-ㅎㅏ-ㅣ"
_RUNS = rf" ?[{_ASCII}]+| ?[{_HANGUL}]+|\s|."
_IDENTIFIER = r".(?=[^ ]*[0-9])|.(?=[^ ]*[-_./:@=+#][A-Za-z0-9])"
_SINGLE = r"[^\p{L}\s]"


def train(dialogues: Iterable[Dialogue], vocabulary: int = VOCABULARY, min_frequency: int = MIN_FREQUENCY) -> Tokenizer:
    """A tokenizer with all control tokens and at most `vocabulary` entries."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            *(pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in (_RUNS, _IDENTIFIER, _SINGLE)),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=min_frequency,
        special_tokens=control_tokens(),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(dialogues, min_frequency), trainer)
    return tokenizer


def _corpus(dialogues: Iterable[Dialogue], min_frequency: int) -> Iterator[str]:
    syllables = [bytes((a, b)).decode("euc-kr") for a in range(0xB0, 0xC9) for b in range(0xA1, 0xFF)]
    values = [c for tool in catalogue().values() for a in tool.arguments for c in a.choices]
    for _ in range(min_frequency):
        yield from syllables
        yield from values
    for dialogue in dialogues:
        for request in dialogue.requests:
            yield from _without_names(request)


def _without_names(request: Request) -> Iterator[str]:
    for s in request.segments:
        if s.mark is None or s.mark.value is not None:
            yield s.text
            yield s.text.lower()


def main() -> None:
    """Writes `tokenizer.json` into the folder given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    folder: Path = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train(d for d in read() if not d.held_out)
    assert tokenizer.token_to_id(PAD) == 0
    tokenizer.save(str(folder / "tokenizer.json"))
    print(f"{tokenizer.get_vocab_size()} tokens written to {folder / 'tokenizer.json'}")


if __name__ == "__main__":
    main()
