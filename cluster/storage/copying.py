"""Copying a folder's tree to a hidden place. Blocks; runs in a thread of its own.

Files share their blocks with the original where the file system can (reflink), else the kernel copies them, holes left
out. Links are copied as links; pipes, sockets and devices are left out and counted. Names are only ever used relative
to an open directory, never through a link, so that nothing that a session does to its folder leads out of it.
"""

import ctypes
import errno
import fcntl
import os
import shutil
import stat
import threading
from dataclasses import dataclass, field
from pathlib import Path

_FICLONE = 0x40049409
_PIECE = 16 << 20
"""Bytes between two looks at whether to go on."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEEPEST = 200
"""Directories inside each other; each has an open file while what is in it is copied."""


class Stopped(Exception):
    """Told to stop."""


class Grown(Exception):
    """There is more to copy than was reserved."""


class TooDeep(Exception):
    """More directories inside each other than are copied."""


@dataclass
class Progress:
    """How far it is; written by the copying thread, read by others."""

    most: int
    """Bytes that may be copied."""
    copied: int = 0
    steps: int = 0
    """Grows with everything that is done."""
    left_out: int = 0
    """Pipes, sockets and devices."""
    stop: threading.Event = field(default_factory=threading.Event)
    known: dict[tuple[int, int], str] = field(default_factory=dict)
    """Files with several names: where the first is in the copy."""

    def go_on(self, copied: int = 0) -> None:
        """Another step is done. Raises `Stopped` and `Grown`."""
        self.steps += 1
        self.copied += copied
        if self.stop.is_set():
            raise Stopped
        if self.copied > self.most:
            raise Grown


def copy_tree(source: Path, target: Path, progress: Progress) -> None:
    """Make `target`, which must not be there, a copy of `source` that is on the disk when this returns.

    Raises OSError, `Stopped`, `Grown`, `TooDeep`; what is copied until then stays, for the caller to remove.
    """
    target.mkdir(parents=True)
    from_fd = os.open(source, _DIRECTORY)
    try:
        to_fd = os.open(target, _DIRECTORY)
        try:
            _directory(from_fd, to_fd, to_fd, "", progress, _DEEPEST)
            _sync(to_fd)
        finally:
            os.close(to_fd)
    finally:
        os.close(from_fd)


def remove(target: Path) -> None:
    """Whatever is there of a copy; nothing is fine too."""
    if target.is_symlink() or target.is_file():
        target.unlink(missing_ok=True)
    elif target.exists():
        shutil.rmtree(target)


def _directory(source: int, target: int, top: int, path: str, progress: Progress, deep: int) -> None:
    if not deep:
        raise TooDeep(path)
    with os.scandir(source) as names:
        entries = [each.name for each in names]
    for name in entries:
        progress.go_on()
        try:
            _entry(source, target, top, f"{path}{name}", name, progress, deep)
        except FileNotFoundError:
            continue  # it went while we were on the way
    found = os.fstat(source)
    os.chmod(target, stat.S_IMODE(found.st_mode) & 0o777 | 0o700)
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))


def _entry(source: int, target: int, top: int, path: str, name: str, progress: Progress, deep: int) -> None:
    found = os.stat(name, dir_fd=source, follow_symlinks=False)
    if stat.S_ISDIR(found.st_mode):
        from_fd = os.open(name, _DIRECTORY, dir_fd=source)
        try:
            os.mkdir(name, 0o700, dir_fd=target)
            to_fd = os.open(name, _DIRECTORY, dir_fd=target)
            try:
                _directory(from_fd, to_fd, top, f"{path}/", progress, deep - 1)
            finally:
                os.close(to_fd)
        finally:
            os.close(from_fd)
    elif stat.S_ISLNK(found.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
    elif stat.S_ISREG(found.st_mode):
        _file(source, target, top, path, name, progress)
    else:
        progress.left_out += 1


def _file(source: int, target: int, top: int, path: str, name: str, progress: Progress) -> None:
    from_fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=source)
    try:
        found = os.fstat(from_fd)
        if not stat.S_ISREG(found.st_mode):
            progress.left_out += 1
            return
        first = progress.known.setdefault((found.st_dev, found.st_ino), path) if found.st_nlink > 1 else path
        if first != path:
            os.link(first, name, src_dir_fd=top, dst_dir_fd=target, follow_symlinks=False)
            return
        to_fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target)
        try:
            _contents(from_fd, to_fd, found.st_size, progress)
            os.fchmod(to_fd, stat.S_IMODE(found.st_mode) & 0o777)
            os.utime(to_fd, ns=(found.st_atime_ns, found.st_mtime_ns))
        finally:
            os.close(to_fd)
    finally:
        os.close(from_fd)


def _contents(source: int, target: int, size: int, progress: Progress) -> None:
    progress.go_on(size)  # holes count like everything else: a quota is about lengths
    try:
        fcntl.ioctl(target, _FICLONE, source)
        return
    except OSError:
        os.ftruncate(target, size)
    at = 0
    while (span := _data_from(source, at, size)) is not None:
        at, end = span
        while at < end:
            at += _piece(source, target, at, min(end - at, _PIECE)) or (end - at)  # cut short meanwhile
            progress.go_on()


def _data_from(source: int, at: int, size: int) -> tuple[int, int] | None:
    """Where the next data is, up to `size`; None when only a hole is left."""
    try:
        start = os.lseek(source, at, os.SEEK_DATA)
        end = os.lseek(source, start, os.SEEK_HOLE)
    except OSError as e:
        if e.errno == errno.ENXIO:
            return None
        start, end = at, size  # this file system knows of no holes
    return (start, min(end, size)) if start < size else None


def _piece(source: int, target: int, at: int, count: int) -> int:
    """Copy at most `count` bytes; 0 at the end of the source."""
    try:
        return os.copy_file_range(source, target, count, at, at)
    except OSError as e:
        if e.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    return os.pwrite(target, os.pread(source, min(count, 1 << 20), at), at)


def _sync(handle: int) -> None:
    """All of the file system that `handle` is on: one call, however many files were copied."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(handle) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
