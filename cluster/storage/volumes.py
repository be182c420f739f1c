"""Folders as directories: `ROOT/<project>/<name>`, and `ROOT/.trash/<id>` for the deleted ones. What is gone for good
is in `ROOT/.purging/<id>` until its files are removed.

Every change is one `mkdir` or one rename, so that a crash leaves either the old or the new state, and every call can be
made again after a crash. All calls block on the disk; call them in a thread from async code.
"""

import errno
import os
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from cluster import errors
from cluster.sentence import S

_TRASH = ".trash"
_CLONES = ".clones"
_PURGING = ".purging"
_NAME_BYTES = 255
_FULL = {errno.ENOSPC, errno.EDQUOT}


class Volumes:
    """The folders under `root`. Raises `Invalid`, `NotFound`, `Conflict`, `StorageFull` and `Unavailable`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def create(self, project: str, name: str) -> Path:
        """Make the directory (again: nothing happens) and return it."""
        path = self.path(project, name)
        with _sentences(self.root):
            path.mkdir(parents=True, exist_ok=True)
            sync(path.parent)
        return path

    def path(self, project: str, name: str) -> Path:
        """Where the folder is, or would be."""
        return self.root / checked(project) / checked(name)

    def exists(self, project: str, name: str) -> bool:
        return self.path(project, name).is_dir()

    def trash(self, project: str, name: str, trash_id: str | None = None) -> str:
        """Move the folder to the trash in one step and return its id there.

        With a `trash_id` of the caller's own, a second call after a crash finds that it is done.
        """
        trash_id = checked(trash_id or uuid4().hex)
        source, target = self.path(project, name), self._trashed(trash_id)
        if target.is_dir() and not source.is_dir():
            return trash_id
        if target.is_dir():
            raise errors.Conflict(S("The trash already holds {id}; nothing was moved.", id=trash_id))
        self._move(source, target, name)
        return trash_id

    def restore(self, trash_id: str, project: str, name: str) -> Path:
        """Move it back from the trash; done already: nothing happens. A folder that has the name now: `Conflict`."""
        source, target = self._trashed(trash_id), self.path(project, name)
        if target.is_dir() and not source.is_dir():
            return target
        if target.is_dir():
            raise errors.Conflict(
                S("A folder named {name} exists in {project}; rename or delete it first.", name=name, project=project)
            )
        self._move(source, target, name)
        return target

    # ── clones: filled out of sight, then renamed ────────────────────────────────────────────────

    def hidden(self, ident: int) -> Path:
        """Where the contents of clone `ident` are gathered."""
        return self.root / _CLONES / f"folder-{ident}"

    def hidden_places(self) -> list[Path]:
        """All of these that there are."""
        where = self.root / _CLONES
        return sorted(where.iterdir()) if where.is_dir() else []

    def place(self, project: str, name: str, trash_id: str | None) -> Path:
        """Where a folder is, whether it is in the trash or not."""
        return self._trashed(trash_id) if trash_id else self.path(project, name)

    def reveal(self, ident: int, project: str, name: str) -> None:
        """Give a complete clone its name; done already: nothing happens. `Conflict` when something lies there."""
        source, target = self.hidden(ident), self.path(project, name)
        if target.exists() and not source.exists():
            return
        if target.exists():
            raise errors.Conflict(S("Something lies at {project}/{name} already.", project=project, name=name))
        self._move(source, target, name)

    def hide(self, ident: int, project: str, name: str) -> None:
        """Take that back."""
        self._move(self.path(project, name), self.hidden(ident), name)

    # ── gone for good: renamed first, removed afterwards ─────────────────────────────────────────

    def discard(self, trash_id: str) -> None:
        """Out of the trash for good, in one rename; gone already: nothing happens. `purge` removes its files."""
        source, target = self._trashed(trash_id), self.purging(trash_id)
        if source.is_dir():
            self._move(source, target, trash_id)

    def take_back(self, trash_id: str) -> None:
        """Back to the trash, if it was discarded."""
        source, target = self.purging(trash_id), self._trashed(trash_id)
        if source.is_dir() and not target.exists():
            self._move(source, target, trash_id)

    def purging(self, ident: str) -> Path:
        """Where something is that is gone for good, until its files are removed."""
        return self.root / _PURGING / checked(ident)

    def discarded(self) -> list[Path]:
        """All of these that there are."""
        where = self.root / _PURGING
        return sorted(where.iterdir()) if where.is_dir() else []

    def size(self, project: str, name: str, stop: Callable[[], bool] = lambda: False) -> int:
        """Bytes of the files in it, each counted once; 0 when there is no such folder, or when `stop` says so."""
        return _bytes_in(self.path(project, name), stop) or 0

    def size_within(self, project: str, name: str, seconds: float) -> int | None:
        """The same, if it can be counted in that time."""
        until = time.monotonic() + seconds
        return _bytes_in(self.path(project, name), lambda: time.monotonic() > until)

    def trash_size(self, trash_id: str) -> int:
        """Bytes of a folder in the trash."""
        return _bytes_in(self._trashed(trash_id)) or 0

    def used(self) -> int:
        """Bytes of everything here, trash included."""
        return _bytes_in(self.root) or 0

    def free(self) -> int:
        """Bytes that can still be written to the disk under `root`."""
        there = next(p for p in (self.root, *self.root.parents) if p.exists())
        with _sentences(self.root):
            stat = os.statvfs(there)
        return stat.f_bavail * stat.f_frsize

    def _trashed(self, trash_id: str) -> Path:
        return self.root / _TRASH / checked(trash_id)

    def _move(self, source: Path, target: Path, name: str) -> None:
        with _sentences(self.root):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                source.rename(target)
            except FileNotFoundError as e:
                raise errors.NotFound(
                    S("The folder {name} has no directory in {root}.", name=name, root=str(self.root))
                ) from e
            sync(target.parent)
            sync(source.parent)


def checked(name: str) -> str:
    """`name` in composed form (NFC: `가` is one character), if it can be a directory's name; else `Invalid`."""
    composed = unicodedata.normalize("NFC", name)
    if not composed.strip() or composed != composed.strip():
        raise errors.Invalid(S("A folder's name is not empty and has no spaces at its ends: {name}.", name=repr(name)))
    if composed.startswith(".") or any(c in "/\\" or unicodedata.category(c) in {"Cc", "Cs"} for c in composed):
        raise errors.Invalid(
            S("A folder's name has no slash or control character and no dot in front: {name}.", name=repr(name))
        )
    if len(composed.encode()) > _NAME_BYTES:
        raise errors.Invalid(
            S("A folder's name has at most {most} bytes: {name}.", most=_NAME_BYTES, name=composed[:40])
        )
    return composed


@contextmanager
def _sentences(root: Path) -> Iterator[None]:
    """What the operating system says, as the cluster's errors."""
    try:
        yield
    except OSError as e:
        where = str(e.filename or root)
        if e.errno in _FULL:
            raise errors.StorageFull(
                S(
                    "The disk that holds {path} is full. Free some space there and try again; nothing was changed.",
                    path=where,
                )
            ) from e
        raise errors.Unavailable(
            S(
                "The storage at {path} cannot be used ({why}). Check its rights and its mount.",
                path=where,
                why=e.strerror or str(e),
            )
        ) from e


def _bytes_in(top: Path, stop: Callable[[], bool] = lambda: False) -> int | None:
    """None when `stop` says so before it is counted."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for count, stat in enumerate(_stats(top)):
        if count % 100 == 0 and stop():
            return None
        key = (stat.st_dev, stat.st_ino)
        if stat.st_nlink == 1:
            total += stat.st_size
        elif key not in seen:
            seen.add(key)
            total += stat.st_size
    return total


def _stats(top: Path) -> Iterator[os.stat_result]:
    """Of all files below `top`, links unfollowed; what vanishes meanwhile is left out."""
    for folder, _, names in os.walk(top, onerror=None):
        for name in names:
            try:
                yield os.lstat(os.path.join(folder, name))
            except FileNotFoundError:
                continue


def sync(directory: Path) -> None:
    """Make a rename in `directory` outlive a power cut."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
