"""A session's output, as its agents have sent it: one file for each attempt at each rank."""

import os
from pathlib import Path

MOST = 256 * 1024
"""Bytes of output given at once."""


def read(path: Path, tail: int | None, offset: int | None) -> tuple[bytes, int]:
    """From `offset` on, or the last `tail` lines; at most `MOST` bytes. Second: where to read on."""
    if not path.exists():
        return b"", 0
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        if offset is not None:
            start = min(max(offset, 0), end)
            file.seek(start)
            data = _whole(file.read(MOST))
            return data, start + len(data)
        file.seek(max(0, end - MOST))
        lines = file.read(MOST).splitlines(keepends=True)
        return b"".join(lines[-tail:] if tail else lines), end


def _whole(data: bytes) -> bytes:
    """Without the beginning of a UTF-8 character at its end, of which the rest is still to come."""
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if byte >= 0xC0:
            needed = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return data[:-back] if back < needed and back < len(data) + 1 else data
        if byte < 0x80:
            break
    return data
