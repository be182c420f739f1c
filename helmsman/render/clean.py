"""Text from outside (logs, names, labels) made harmless before it is drawn: it may not steer the terminal."""

import re
import unicodedata

_SEQUENCES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)"  # OSC, DCS …: titles, clipboard, links; up to its end or the line's
    r"|\x9b[0-?]*[ -/]*[@-~]"
    r"|\x1b[ -/]*[0-~]",
    re.MULTILINE,
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")
TAB = 4


def clean(text: str) -> str:
    """`text` without escape sequences, control characters and direction overrides; newlines stay, tabs become spaces.

    A progress bar that redraws its line by carriage returns shows its last state only. Decomposed Hangul is composed.
    """
    text = _SEQUENCES.sub("", text.replace("\r\n", "\n"))
    lines = (_last_state(line).expandtabs(TAB) for line in text.split("\n"))
    return unicodedata.normalize("NFC", _CONTROLS.sub("", "\n".join(lines)))


def one_line(text: str) -> str:
    """`clean`, and newlines become spaces: for names, cells and titles."""
    return " ".join(clean(text).split("\n"))


def _last_state(line: str) -> str:
    """What a terminal would show in the end of a line with carriage returns (the last piece that isn't empty)."""
    if "\r" not in line:
        return line
    pieces = [piece for piece in line.split("\r") if piece]
    return pieces[-1] if pieces else ""
