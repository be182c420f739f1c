"""Reaching files below a directory that people's sessions write to, without ever being led out of it.

Sessions can put links, pipes and devices anywhere in a folder, and swap a directory for a link at any moment. So a path
is never given to the system as a whole: each part is opened by itself, relative to the one before, and never through
a link. What was opened stays the same thing, whatever happens to its name meanwhile.
"""

import errno
import os
import stat
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster import errors
from cluster.sentence import S

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PART_BYTES = 255
_PATH_BYTES = 4096
_FULL = {errno.ENOSPC, errno.EDQUOT}


class Missing(errors.NotFound):
    """A part of the path is not there."""


def parts_of(path: str) -> list[str]:
    """The parts of a path inside a folder, in composed form; empty for the folder itself. Raises `Invalid`."""
    composed = unicodedata.normalize("NFC", path)
    if len(_encoded(composed)) > _PATH_BYTES:
        raise errors.Invalid(S("A path in a folder has at most {most} bytes.", most=_PATH_BYTES))
    parts = [part for part in composed.split("/") if part]
    if composed.startswith("/") or any(part in (".", "..") for part in parts):
        raise errors.Invalid(S("A path in a folder starts at its top and has no dots for parts: {path}.", path=path))
    if any(unicodedata.category(c) in {"Cc", "Cs"} for part in parts for c in part):
        raise errors.Invalid(S("A path in a folder has no control characters: {path}.", path=repr(path)))
    if any(len(part.encode()) > _PART_BYTES for part in parts):
        raise errors.Invalid(S("Each part of a path has at most {most} bytes: {path}.", most=_PART_BYTES, path=path))
    return parts


def _encoded(path: str) -> bytes:
    """Also of what is no text at all, which is refused right after."""
    return path.encode(errors="surrogatepass")


@contextmanager
def directory(top: Path, parts: list[str], make: bool = False) -> Iterator[int]:
    """A descriptor of the directory `parts` below `top`; with `make`, those that are missing are made.

    Raises `NotFound`, `Conflict` (a part is a link or a file), `StorageFull`, `Unavailable`.
    """
    with _said(top.name, parts):
        handle = os.open(top, _DIRECTORY)
        try:
            for part in parts:
                name = part if make and not _there(handle, part) else entry(handle, part)
                if make:
                    _make(handle, name)
                inner = os.open(name, _DIRECTORY, dir_fd=handle)
                os.close(handle)
                handle = inner
            yield handle
        finally:
            os.close(handle)


def file(top: Path, parts: list[str]) -> int:
    """A descriptor, for reading, of a regular file below `top`. The caller closes it."""
    if not parts:
        raise errors.Conflict(S("{path} is a folder, not a file.", path=top.name))
    with directory(top, parts[:-1]) as handle, _said(top.name, parts):
        name = entry(handle, parts[-1])
        _must_be_file(os.stat(name, dir_fd=handle, follow_symlinks=False), parts)
        # not blocking: were it swapped for a pipe just now, opening it would wait for ever
        found = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=handle)
        try:
            _must_be_file(os.fstat(found), parts)
        except BaseException:
            os.close(found)
            raise
        return found


def entry(handle: int, part: str) -> str:
    """The name in this directory that `part` means: itself, or the one that is written the same in other code points.

    Systems that decompose Hangul write `가` as two characters.
    """
    if part.isascii() or _there(handle, part):
        return part
    with os.scandir(handle) as names:
        same = (each.name for each in names if unicodedata.normalize("NFC", each.name) == part)
        return next(same, part)


def _there(handle: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=handle, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _make(handle: int, name: str) -> None:
    try:
        os.mkdir(name, 0o755, dir_fd=handle)
        os.fsync(handle)
    except FileExistsError:
        return


def _must_be_file(found: os.stat_result, parts: list[str]) -> None:
    path = "/".join(parts)
    if stat.S_ISDIR(found.st_mode):
        raise errors.Conflict(S("{path} is a folder, not a file.", path=path))
    if stat.S_ISLNK(found.st_mode):
        raise errors.Conflict(S("{path} is a link, and links are not followed; ask for what it points to.", path=path))
    if not stat.S_ISREG(found.st_mode):
        raise errors.Conflict(S("{path} is neither a file nor a folder, and cannot be read.", path=path))


@contextmanager
def _said(folder: str, parts: list[str]) -> Iterator[None]:
    """What the system says, as the cluster's errors."""
    path = "/".join(parts) or folder
    try:
        yield
    except FileNotFoundError as e:
        raise Missing(S("There is no {path} in {folder}.", path=path, folder=folder)) from e
    except OSError as e:
        if e.errno in (errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENXIO):
            raise errors.Conflict(
                S("A part of {path} is a link or a file, and there is no way through it.", path=path)
            ) from e
        if e.errno in _FULL:
            raise errors.StorageFull(S("The disk is full; nothing was changed at {path}.", path=path)) from e
        raise errors.Unavailable(
            S("{path} cannot be used ({why}).", path=path, why=e.strerror or type(e).__name__)
        ) from e
