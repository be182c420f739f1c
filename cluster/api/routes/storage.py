"""Folders, and reading the files in them."""

import os
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import FileResponse
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from cluster.api.asking import Asking, TheCore
from cluster.models import FilePage, Folder, Page
from cluster.storage.reads import FileQuery, FolderQuery, Opened

router = APIRouter(tags=["storage"])


class OpenFile(FileResponse):
    """A file that is open already, by its descriptor: whatever becomes of its name, this is what is sent. Ranges, ETag
    and `If-Range` are Starlette's. Closed in the end, however that comes."""

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
        finally:
            os.close(self._handle)


def _tag(found: os.stat_result) -> str:
    """Another one as soon as anything is written to the file; its owner can set back every time but this one."""
    return f'"{found.st_ino:x}-{found.st_size:x}-{found.st_ctime_ns:x}"'


def _as_announced(send: Send) -> Send:
    """Not more than the length that was announced, though a session appends to the file meanwhile."""
    left, over = -1, False

    async def cut(message: Message) -> None:
        nonlocal left, over
        if message["type"] == "http.response.start":
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
