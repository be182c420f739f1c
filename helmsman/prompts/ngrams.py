"""What the second reader sees of a line: hashed character and word n-grams, names masked."""

import re
import zlib

FILE = "prior.npz"
"""The second reader, beside G in its folder."""
BUCKETS = 2**16
"""Features are hashed into so many."""
CHARACTERS = range(1, 6)
WORDS = range(1, 4)
_NAME = re.compile(
    r"`[^`]*`|[A-Za-z0-9_./:-]*\d[A-Za-z0-9_./:-]*|[A-Za-z0-9]+(?:[-_./:][A-Za-z0-9]+)+",
)
_SPACE = re.compile(r"\s+")


def features(text: str, before: str = "") -> list[int]:
    """Distinct feature numbers of a line, below `BUCKETS`; `before`: the tool of the turn before, or nothing."""
    masked = _SPACE.sub(" ", f" {_NAME.sub('#', text.lower())} ")
    words = masked.split()
    found = {f"b{before}"}
    for n in CHARACTERS:
        found |= {f"c{masked[i : i + n]}" for i in range(len(masked) - n + 1)}
    for n in WORDS:
        found |= {f"w{' '.join(words[i : i + n])}" for i in range(len(words) - n + 1)}
    return sorted({zlib.crc32(f.encode()) % BUCKETS for f in found})
