"""Every error of the conversation. The sentence says what, where and what to do."""

from cluster.sentence import Sentence


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
