"""Taking a single file, or a directory, out of a folder for good: what it is, and one rename. Blocks on the disk."""

import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import Conflict
from cluster.sentence import S
from cluster.storage import beneath


@dataclass(frozen=True)
class Weight:
    """What would go. Bytes."""

    directory: bool
    files: int
    size: int
    complete: bool = True
    """False: it could not be counted in time, and there is more."""


def weigh(top: Path, parts: list[str], seconds: float) -> Weight:
    """What lies at `parts` below `top`; a link is one file without bytes, and is not followed. Raises `NotFound`."""
    with beneath.directory(top, parts[:-1]) as handle:
        name = beneath.entry(handle, parts[-1])
        found = os.stat(name, dir_fd=handle, follow_symlinks=False)
    if not stat.S_ISDIR(found.st_mode):
        return Weight(False, 1, _bytes(found))
    until, count, total = time.monotonic() + seconds, 0, 0
    seen: set[tuple[int, int]] = set()
    for each in _files(top, [*parts[:-1], name]):
        if time.monotonic() > until:
            return Weight(True, count, total, complete=False)
        count += 1
        key = (each.st_dev, each.st_ino)
        if each.st_nlink == 1 or key not in seen:
            total += _bytes(each)
        if each.st_nlink > 1:
            seen.add(key)
    return Weight(True, count, total)


def _files(top: Path, parts: list[str]) -> Iterator[os.stat_result]:
    """Of everything below that is no directory; what vanishes meanwhile is left out."""
    left = [parts]
    while left:
        here = left.pop()
        with suppress(beneath.Missing, Conflict), beneath.directory(top, here) as handle:
            for name in os.listdir(handle):
                with suppress(FileNotFoundError):
                    found = os.stat(name, dir_fd=handle, follow_symlinks=False)
                    if stat.S_ISDIR(found.st_mode):
                        left.append([*here, name])
                    else:
                        yield found


def _bytes(found: os.stat_result) -> int:
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def discard(top: Path, parts: list[str], target: Path, whole: bool) -> None:
    """Move it to `target`, out of sight. `whole`: also a directory. Raises `NotFound`, `Conflict`, `Unavailable`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with beneath.directory(top, parts[:-1]) as handle:
        name = beneath.entry(handle, parts[-1])
        found = os.stat(name, dir_fd=handle, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode) and not whole:
            raise is_a_directory(parts)
        os.rename(name, target, src_dir_fd=handle)
        os.fsync(handle)


def take_back(top: Path, parts: list[str], target: Path) -> None:
    """As if it had not been moved."""
    with beneath.directory(top, parts[:-1]) as handle:
        os.rename(target, beneath.entry(handle, parts[-1]), dst_dir_fd=handle)


def is_a_directory(parts: list[str]) -> Conflict:
    path = "/".join(parts)
    return Conflict(S("{path} is a folder; say that all that is in it is to go too (recursive).", path=path))
