"""Folders, and reading the files in them."""

import os
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import FileResponse
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from cluster.api.asking import Asking, TheCore
from cluster.api.problems import problem
from cluster.errors import Invalid
from cluster.models import FilePage, Folder, Page
from cluster.sentence import S
from cluster.storage.reads import FileQuery, FolderQuery, Opened

router = APIRouter(tags=["storage"])


class OpenFile(FileResponse):
    """A file that is open already, by its descriptor: whatever becomes of its name, this is what is sent. Ranges, ETag
    and `If-Range` are Starlette's; what it refuses becomes a problem document. Closed in the end, whatever comes."""

    chunk_size = 1 << 20

    def __init__(self, opened: Opened) -> None:
        super().__init__(
            f"/proc/self/fd/{opened.handle}",
            stat_result=os.fstat(opened.handle),
            filename=opened.name,
            media_type="application/octet-stream",
            headers={"X-Content-Type-Options": "nosniff", "ETag": _tag(os.fstat(opened.handle))},
        )
        self._handle = opened.handle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, _as_announced(send))
        except _Refusal as e:
            await e.answer(scope, receive, send)
        finally:
            os.close(self._handle)


class BadRange(Invalid):
    """A `Range` that says nothing."""

    status = 400


class NoSuchRange(Invalid):
    """A `Range` that the file does not have."""

    status = 416


class _Refusal(Exception):
    """Starlette began to refuse a range, in plain text: this is answered instead."""

    def __init__(self, status: int, headers: Headers) -> None:
        super().__init__(status)
        told = {"Content-Range": headers["content-range"]} if "content-range" in headers else {}
        size = told.get("Content-Range", "").rpartition("/")[2]
        e = (
            NoSuchRange(S("The file has {size} bytes, and none of them lie in that Range.", size=size))
            if status == NoSuchRange.status
            else BadRange(S("The Range can't be read; it is written like bytes=0-1023."))
        )
        self.answer = problem(e, headers=told)


def _tag(found: os.stat_result) -> str:
    """Another one as soon as anything is written to the file; its owner can set back every time but this one."""
    return f'"{found.st_ino:x}-{found.st_size:x}-{found.st_ctime_ns:x}"'


def _as_announced(send: Send) -> Send:
    """Not more than the length that was announced, though a session appends to the file meanwhile."""
    left, over = -1, False

    async def cut(message: Message) -> None:
        nonlocal left, over
        if message["type"] == "http.response.start":
            if message["status"] in (BadRange.status, NoSuchRange.status):
                raise _Refusal(message["status"], Headers(raw=message["headers"]))
            left = int(Headers(raw=message["headers"]).get("content-length", -1))
        elif left >= 0:
            if over:
                return
            body = message.get("body", b"")[:left]
            left -= len(body)
            over = left == 0 or not message.get("more_body", False)
            message = {**message, "body": body, "more_body": not over}
        await send(message)

    return cut


@router.get("/v1/folders")
async def folders(core: TheCore, user: Asking, query: Annotated[FolderQuery, Query()]) -> Page[Folder]:
    return await core.folders.folders(user, query)


@router.get("/v1/folders/{ref}/files")
async def files(core: TheCore, user: Asking, ref: str, query: Annotated[FileQuery, Query()]) -> FilePage:
    """The names in a directory of the folder."""
    return await core.folders.files(user, ref, query)


@router.get("/v1/folders/{ref}/files/{path:path}", response_class=FileResponse)
@router.head("/v1/folders/{ref}/files/{path:path}", response_class=FileResponse, include_in_schema=False)
async def download(core: TheCore, user: Asking, ref: str, path: str, project: str | None = None) -> OpenFile:
    """A file, or with `Range` a part of it; `If-Range` with the ETag gives the part only if it is still the same."""
    return OpenFile(await core.folders.open_file(user, ref, project, path))
