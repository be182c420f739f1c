"""Every error of the conversation. The sentence says what, where and what to do."""

from pathlib import Path

from cluster.sentence import S, Sentence


class HelmsmanError(Exception):
    """Base; `sentence` is for people."""

    exit_code = 5

    def __init__(self, sentence: Sentence) -> None:
        super().__init__(str(sentence))
        self.sentence = sentence


class Busy(HelmsmanError):
    """Another face's turn is running in this thread."""


class Stale(HelmsmanError):
    """The question was answered already, or the plan is another one by now."""


class BadConfig(HelmsmanError):
    """All mistakes of the configuration, at once."""

    exit_code = 2


class ModelUnavailable(HelmsmanError):
    """The language model doesn't answer (a dead endpoint, missing weights)."""


def unkept(path: Path, error: Exception) -> HelmsmanError:
    """Conversations cannot be written: a full or read-only disk, a broken file."""
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return HelmsmanError(
        S(
            "Conversations can't be kept in {path} ({why}). Free some space there or make it writable.",
            path=str(path),
            why=why,
        )
    )
