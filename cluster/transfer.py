"""Files to and from the cluster's folders, over connections that break: both ways go on where they stopped."""

import asyncio
import base64
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import httpx

from cluster import errors
from cluster.sentence import S

PIECE = 1 << 20
"""Bytes that are read at a time."""
TRIES = 20
"""Attempts without any progress before it is given up."""
PAUSE = 0.2
LONGEST = 5.0
TUS = {"Tus-Resumable": "1.0.0"}
Send = Callable[..., Awaitable[httpx.Response]]
"""`send(method, path, headers, content)`: one request. Raises `ClusterError`s, `Unavailable` when it breaks."""


async def upload(send: Send, folder: str, source: Path, path: str) -> int:
    """Put the file `source` into `folder` at `path`; returns its bytes. Raises a `ClusterError` when that is refused,
    or the server stays away."""
    size = (await asyncio.to_thread(source.stat)).st_size
    words = {"folder": folder, "path": path}
    told = ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in words.items())
    begun = await send("POST", "/v1/uploads", {**TUS, "Upload-Length": str(size), "Upload-Metadata": told}, None)
    where, at, tries = begun.headers["Location"], 0, 0
    while size:  # an empty file is there already
        try:
            more = {"Upload-Offset": str(at), "Content-Type": "application/offset+octet-stream"}
            headers = {**TUS, **more, "Content-Length": str(size - at)}
            await send("PATCH", where, headers, _from(source, at, size))
            return size
        except (errors.Unavailable, errors.Conflict) as e:
            tries += 1
            if tries > (1 if isinstance(e, errors.Conflict) else TRIES):
                raise
            await asyncio.sleep(_pause(tries))
            now = await _offset(send, where)
            at, tries = now, tries if now == at else 0
    return size


async def _from(source: Path, at: int, end: int) -> AsyncIterator[bytes]:
    """Up to `end`, though the file may grow."""
    with source.open("rb") as file:
        file.seek(at)
        while at < end and (data := await asyncio.to_thread(file.read, min(PIECE, end - at))):
            at += len(data)
            yield data


async def _offset(send: Send, where: str) -> int:
    """Where the server is by now."""
    tries = 0
    while True:
        try:
            return int((await send("HEAD", where, TUS, None)).headers["Upload-Offset"])
        except errors.Unavailable:
            tries += 1
            if tries > TRIES:
                raise
            await asyncio.sleep(_pause(tries))


Stream = Callable[[dict[str, str]], AbstractAsyncContextManager[httpx.Response]]
"""The request for the file with more headers; raises `ClusterError`s, `Unavailable` when it breaks."""


async def download(stream: Stream, target: Path) -> int:
    """Fetch a file to `target`, which appears when it is complete; returns its bytes. It is gathered beside it, in
    `.part`; what an earlier call has left there is thrown away, since nobody knows which version of the file it was."""
    part, tag, tries = target.with_name(f"{target.name}.part"), "", 0
    await asyncio.to_thread(part.unlink, missing_ok=True)
    while True:
        have = _size(part)
        try:
            async with stream({"Range": f"bytes={have}-", "If-Range": tag} if have else {}) as reply:
                tag = reply.headers["ETag"]
                await _to(part, reply)
            break
        except (httpx.TransportError, errors.Unavailable):
            tries = tries + 1 if _size(part) == have else 0
            if tries > TRIES:
                raise
            await asyncio.sleep(_pause(tries))
    await asyncio.to_thread(_settle, part, target)
    return _size(target)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


async def _to(part: Path, reply: httpx.Response) -> None:
    """Behind what is there, when it is a part that comes; else from the start."""
    with part.open("ab" if reply.status_code == 206 else "wb") as file:
        async for data in reply.aiter_bytes(PIECE):
            await asyncio.to_thread(file.write, data)


def _settle(part: Path, target: Path) -> None:
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(target)


def _pause(tries: int) -> float:
    return min(LONGEST, PAUSE * float(2 ** min(tries, 8)))


def parted(folder: str) -> tuple[str, dict[str, str]]:
    """`project/name` as the name and the query that says which project. Raises `NotFound`."""
    project, _, name = folder.rpartition("/")
    if not name or "/" in project:
        raise errors.NotFound(S("There is no folder {name}.", name=folder or '""'))
    return name, {"project": project} if project else {}
