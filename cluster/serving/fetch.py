"""Fetch a model from the hub, as a process of its own: `python -m cluster.serving.fetch ID DIRECTORY [ENDPOINT]`.

It can be killed at any moment: what is complete stays, and the next try goes on from there. One JSON object a line on
stdout: `{"size", "files", "left_out", "revision"}` when it is known what there is to fetch; it begins when its stdin
says `go`, and ends when its stdin does (nobody waits for it any more). At the end `{"done": true}`, or
`{"failed": CODE, "detail": …}` with one of `CODES`.
"""

import errno
import hashlib
import json
import os
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.serving.cards import is_pickle, is_safe, is_weights

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

CODES = ("offline", "not_found", "not_allowed", "pickle", "no_weights", "strange", "checksum", "full", "failed")
WORKERS = 4
"""Files that are fetched at the same time."""
PIECE = 4 * 2**20


_UNREACHED = frozenset({"TransportError", "ConnectionError", "LocalEntryNotFoundError"})
"""Classes of errors that mean that the hub was not reached, whatever HTTP library its client uses."""


class Failed(Exception):
    """With one of `CODES`, and what it is about."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(code)
        self.code, self.detail = code, detail


def main(arguments: Sequence[str]) -> int:
    """0 when everything is there."""
    ident, directory, *rest = arguments
    try:
        fetch(ident, Path(directory), rest[0] if rest else None)
    except Failed as e:
        _say({"failed": e.code, "detail": e.detail[:500]})
        return 1
    _say({"done": True})
    return 0


def fetch(ident: str, directory: Path, endpoint: str | None) -> None:
    """Make `directory` hold the model's files. Raises `Failed`."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        revision, wanted = _ask(ident, endpoint)
        if sys.stdin.readline().strip() != "go":
            raise Failed("failed", "it was called off")
        threading.Thread(target=_end_with_stdin, daemon=True).start()
        _get(ident, revision, wanted, directory, endpoint)
    except Failed:
        raise
    except Exception as e:  # the library's errors have no root of their own
        raise _translated(e) from e
    _check(wanted, directory)
    shutil.rmtree(directory / ".cache", ignore_errors=True)


def _end_with_stdin() -> None:
    sys.stdin.read()
    os._exit(3)


def _ask(ident: str, endpoint: str | None) -> tuple[str, list["RepoSibling"]]:
    """The revision, and its files that are wanted; said on stdout."""
    from huggingface_hub import HfApi

    info = HfApi(endpoint=endpoint).model_info(ident, files_metadata=True, timeout=30)
    files = list(info.siblings or [])
    for file in files:
        if ".." in file.rfilename.split("/") or file.rfilename.startswith("/") or "\\" in file.rfilename:
            raise Failed("strange", file.rfilename[:100])
    wanted = [file for file in files if is_safe(file.rfilename)]
    if not any(is_weights(file.rfilename) for file in wanted):
        raise Failed("pickle" if any(is_pickle(file.rfilename) for file in files) else "no_weights")
    if not info.sha:
        raise Failed("failed", "the hub does not say which revision it has")
    size = sum(file.size or 0 for file in wanted)
    _say({"size": size, "files": len(wanted), "left_out": len(files) - len(wanted), "revision": info.sha})
    return info.sha, wanted


def _get(ident: str, revision: str, wanted: Sequence["RepoSibling"], directory: Path, endpoint: str | None) -> None:
    from huggingface_hub import hf_hub_download

    def one(name: str) -> None:
        hf_hub_download(ident, name, revision=revision, local_dir=directory, endpoint=endpoint)

    with ThreadPoolExecutor(WORKERS) as pool:
        for done in [pool.submit(one, file.rfilename) for file in wanted]:
            done.result()


def _check(wanted: Sequence["RepoSibling"], directory: Path) -> None:
    """Every file is there, whole, and what the hub says it is. One that is not is removed, to be fetched anew."""
    for file in wanted:
        path = directory / file.rfilename
        if path.is_symlink() or not path.resolve().is_relative_to(directory.resolve()) or not path.is_file():
            raise Failed("strange", file.rfilename[:100])
        if not _is_right(path, file):
            path.unlink()
            raise Failed("checksum", file.rfilename[:100])


def _is_right(path: Path, file: "RepoSibling") -> bool:
    size = path.stat().st_size
    if file.size is not None and size != file.size:
        return False
    if file.lfs is not None:
        return _digest(path, hashlib.sha256()) == file.lfs.sha256
    if file.blob_id is not None:
        return _digest(path, hashlib.sha1(b"blob %d\0" % size)) == file.blob_id
    return True


def _digest(path: Path, digest: Any) -> str:
    for piece in _pieces(path):
        digest.update(piece)
    return str(digest.hexdigest())


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            yield piece


def _translated(e: Exception) -> Failed:
    """What the library and the system say, as one of `CODES`."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    said = str(e).splitlines()[0] if str(e) else type(e).__name__
    if isinstance(e, RepositoryNotFoundError) and not isinstance(e, GatedRepoError):
        return Failed("not_found", said)
    if isinstance(e, HfHubHTTPError):
        status = e.response.status_code if e.response is not None else 0
        return Failed("not_allowed" if status in (401, 403) else "offline" if status >= 500 else "failed", said)
    if getattr(e, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return Failed("full")
    return Failed("offline" if _UNREACHED & {kind.__name__ for kind in type(e).__mro__} else "failed", said)


def _say(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
