"""The bytes of uploads that are not finished: `ROOT/.uploads/<id>`, moved into their folder when complete. Blocks."""

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from cluster.errors import Conflict
from cluster.sentence import S
from cluster.storage import beneath
from cluster.storage.volumes import sync

_WHERE = ".uploads"
_OLD = ".old"
_OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC


def place(root: Path, ident: str) -> Path:
    return root / _WHERE / ident


def begin(root: Path, ident: str) -> None:
    """An empty file for a new upload; there already: nothing happens."""
    where = root / _WHERE
    where.mkdir(parents=True, exist_ok=True)
    os.close(os.open(where / ident, _OPEN | os.O_CREAT, 0o644))
    sync(where)


def forget(root: Path, ident: str) -> None:
    """Whatever is there of it."""
    for name in (ident, ident + _OLD):
        (root / _WHERE / name).unlink(missing_ok=True)


def open_to_write(root: Path, ident: str) -> int:
    """A descriptor; the caller closes it. Raises FileNotFoundError."""
    return os.open(place(root, ident), _OPEN)


def length(root: Path, ident: str) -> int:
    """Bytes that have arrived and are on the disk. Raises FileNotFoundError."""
    handle = open_to_write(root, ident)
    try:
        os.fsync(handle)  # what is told to have arrived outlives a power cut
        return os.fstat(handle).st_size
    finally:
        os.close(handle)


def write(handle: int, data: bytes, at: int) -> None:
    """All of it."""
    left = memoryview(data)
    while left:
        count = os.pwrite(handle, left, at)
        left, at = left[count:], at + count


def replaces(top: Path, parts: list[str]) -> int:
    """Bytes of the file whose place the upload takes; 0 when there is none. Raises `Conflict` for a folder."""
    try:
        with beneath.directory(top, parts[:-1]) as handle:
            return _size_of(handle, beneath.entry(handle, parts[-1]), parts)
    except beneath.Missing:
        return 0


def land(root: Path, ident: str, top: Path, parts: list[str]) -> None:
    """Move the file to its place, which is never anything in between: the old file, or the whole new one."""
    with beneath.directory(top, parts[:-1], make=True) as handle:
        name = beneath.entry(handle, parts[-1])
        _size_of(handle, name, parts)
        old = place(root, ident + _OLD)
        old.unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            os.link(name, old, src_dir_fd=handle, follow_symlinks=False)
        os.rename(place(root, ident), name, dst_dir_fd=handle)
        os.fsync(handle)
    sync(root / _WHERE)


def take_back(root: Path, ident: str, top: Path, parts: list[str]) -> None:
    """As if it had not landed."""
    with beneath.directory(top, parts[:-1]) as handle:
        name = beneath.entry(handle, parts[-1])
        os.rename(name, place(root, ident), src_dir_fd=handle)
        with suppress(FileNotFoundError):
            os.rename(place(root, ident + _OLD), name, dst_dir_fd=handle)


def landed(top: Path, parts: list[str], size: int) -> bool:
    """A file of that size is where the upload was to go."""
    try:
        with beneath.directory(top, parts[:-1]) as handle:
            found = os.stat(beneath.entry(handle, parts[-1]), dir_fd=handle, follow_symlinks=False)
    except (beneath.Missing, Conflict, OSError):
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == size


def sweep(root: Path, known: Iterable[str]) -> None:
    """Remove what belongs to no upload any more."""
    keep = set(known)
    where = root / _WHERE
    for path in where.iterdir() if where.is_dir() else ():
        if path.name not in keep:
            with suppress(OSError):
                path.unlink()


def _size_of(handle: int, name: str, parts: list[str]) -> int:
    try:
        found = os.stat(name, dir_fd=handle, follow_symlinks=False)
    except FileNotFoundError:
        return 0
    if stat.S_ISDIR(found.st_mode):
        raise Conflict(S("{path} is a folder; give the file another name.", path="/".join(parts)))
    return found.st_size if stat.S_ISREG(found.st_mode) else 0
