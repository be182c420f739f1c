"""The output of a command, kept within bounds: its beginning, and, when there was too much, its end.

```
output.log    the first half of what may be kept, as it comes;  at the end: a line that says what is missing, the tail
output.1, .2  only meanwhile: the two last pieces of a quarter each, written in turn
```

A file is only ever appended to, so that whoever tells it by offset is right at any time. What comes between is dropped.
"""

import os
import threading
from pathlib import Path

from cluster.agents.record import Record

_READ = 1 << 16
_COPY = 1 << 20
_PATIENCE = 5.0
"""Seconds for the last bytes, when something that even SIGKILL did not end still holds the other end."""


class Keeper:
    """Reads a pipe in a thread of its own until nobody writes into it any more."""

    def __init__(self, record: Record, most: int) -> None:
        """`most`: bytes that may be kept of it."""
        self._path = record.output
        self._head, self._piece = most // 2, most // 4
        self._pieces = [record.path / "output.1", record.path / "output.2"]
        self._taken = 0
        self._in_piece = 0
        self.pipe, self._writing = os.pipe()
        self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115 - closed in `finish`
        self._size = self._file.tell()
        self._thread = threading.Thread(target=self._read, daemon=True)

    @property
    def writing(self) -> int:
        """The command's end of the pipe."""
        return self._writing

    def begin(self) -> None:
        """The command has its end: read."""
        os.close(self._writing)
        self._thread.start()

    def finish(self) -> None:
        """After the end of all that wrote: the last bytes, and the tail of what was too much."""
        self._thread.join(_PATIENCE)
        if self._taken > 0:
            self._append(f"\n[helmsman: {self._left_out()} bytes of output left out here, the end follows]\n".encode())
            for piece in self._in_order():
                self._copy(piece)
        self._file.close()

    def _read(self) -> None:
        while data := os.read(self.pipe, _READ):
            room = max(0, self._head - self._size)
            if data[:room]:
                self._append(data[:room])
                self._size += len(data[:room])
            if data[room:]:
                self._set_aside(data[room:])
        os.close(self.pipe)

    def _append(self, data: bytes) -> None:
        """On a full disk it is lost: the command goes on."""
        try:
            self._file.write(data)
        except OSError:
            return

    def _set_aside(self, data: bytes) -> None:
        """Into the piece that is being written; when it is full, over the older one."""
        if self._taken == 0:
            self._append(b"\n[helmsman: more output than is kept; its end follows when the command has ended]\n")
        self._taken += len(data)
        while data:
            if self._in_piece == self._piece:
                self._pieces.reverse()
                self._in_piece = 0
            part, data = data[: self._piece - self._in_piece], data[self._piece - self._in_piece :]
            self._write_piece(part)
            self._in_piece += len(part)

    def _write_piece(self, data: bytes) -> None:
        try:
            with open(self._pieces[0], "ab" if self._in_piece else "wb") as file:
                file.write(data)
        except OSError:
            return

    def _in_order(self) -> list[Path]:
        """The older piece first, if there is one."""
        return [p for p in reversed(self._pieces) if p.exists()]

    def _left_out(self) -> int:
        return self._taken - sum(p.stat().st_size for p in self._in_order())

    def _copy(self, piece: Path) -> None:
        with open(piece, "rb") as file:
            while data := file.read(_COPY):
                self._append(data)
        piece.unlink()
