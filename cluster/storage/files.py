"""The files in a folder: what names a directory has. Blocks on the disk."""

import os
import stat
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from cluster.errors import Conflict, NotFound
from cluster.models import FileEntry
from cluster.sentence import S
from cluster.storage import beneath

MOST = 100_000
"""So many names of a directory are looked at."""
Kind = Literal["file", "folder", "link", "other"]


def entries(top: Path, parts: list[str]) -> tuple[list[FileEntry], bool]:
    """The names in the directory `parts` below `top`, and whether these are all."""
    found: list[FileEntry] = []
    with beneath.directory(top, parts) as handle, os.scandir(handle) as names:
        for each in islice(names, MOST):
            try:
                found.append(_entry(each.name, each.stat(follow_symlinks=False)))
            except FileNotFoundError:
                continue
        return found, next(names, None) is None


def key(entry: FileEntry, by: str) -> tuple[Any, str]:
    """What a list is sorted by; the name decides between equals."""
    return (entry.name if by == "name" else getattr(entry, by) or 0, entry.name)


def _entry(name: str, found: os.stat_result) -> FileEntry:
    kind = _kind(found.st_mode)
    return FileEntry(
        name=_readable(name),
        kind=kind,
        size=found.st_size if kind == "file" else 0,
        modified=_moment(found.st_mtime),
    )


def _kind(mode: int) -> Kind:
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "folder"
    return "link" if stat.S_ISLNK(mode) else "other"


def _readable(name: str) -> str:
    """A name that is not UTF-8 with its bytes written out (`\\xff`); it can be seen like that, but not asked for."""
    return os.fsencode(name).decode(errors="backslashreplace")


def _moment(seconds: float) -> datetime | None:
    """None for a time that no calendar has; whoever writes a file can set any."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


# ── simulated folders ────────────────────────────────────────────────────────────────────────────


def simulated(folder: str, contents: Sequence[Mapping[str, Any]], parts: list[str]) -> list[FileEntry]:
    """The same of a simulated folder, whose files are `{"path", "size", "modified"}`."""
    found: dict[str, FileEntry] = {}
    for file in contents:
        path = [part for part in str(file["path"]).split("/") if part]
        if path == parts and parts:
            raise Conflict(S("{path} is a file, not a folder.", path="/".join(parts)))
        if path[: len(parts)] != parts:
            continue
        name, deeper = path[len(parts)], len(path) > len(parts) + 1
        modified = file.get("modified")
        when = datetime.fromisoformat(modified) if modified else None
        if deeper:
            found.setdefault(name, FileEntry(name=name, kind="folder", modified=when))
        else:
            found[name] = FileEntry(name=name, kind="file", size=int(file["size"]), modified=when)
    if parts and not found:
        raise NotFound(S("There is no {path} in {folder}.", path="/".join(parts), folder=folder))
    return list(found.values())
