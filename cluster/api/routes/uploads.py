"""Resumable uploads by the tus protocol 1.0.0 (tus.io), with creation, creation-with-upload, checksum, termination and
expiration. `Upload-Metadata` names the folder (`folder`, and `project` where two have the name) and where in it the
file goes (`path`, or `filename`)."""

import base64
import binascii
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from email.utils import format_datetime
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from cluster.api.asking import Asking, TheCore, person
from cluster.api.problems import problem
from cluster.errors import ClusterError, Invalid
from cluster.sentence import S
from cluster.storage.uploads import Check, Upload

VERSION = "1.0.0"
BODY = "application/offset+octet-stream"
MOST = 2**53 - 1
"""Bytes of a file; what every language reads as an exact number."""
HASHES = ("sha1", "sha256", "md5")
ABOUT = {
    "Tus-Resumable": VERSION,
    "Tus-Version": VERSION,
    "Tus-Extension": "creation,creation-with-upload,checksum,termination,expiration",
    "Tus-Max-Size": str(MOST),
    "Tus-Checksum-Algorithm": ",".join(HASHES),
}


class Unsupported(Invalid):
    """Another version of the protocol."""

    status = 412


class NoSuchBody(Invalid):
    """A body that is not announced as a part of a file."""

    status = 415


class UnknownHash(Invalid):
    """A checksum in a way that this server does not have."""

    status = 400


class TusRoute(APIRoute):
    """The protocol's version is checked when it is known who asks, and told in every answer, errors too."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        handle = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                if request.method != "OPTIONS" and request.headers.get("tus-resumable") != VERSION:
                    await person(request.app.state.core, request.headers.get("authorization", ""))
                    raise Unsupported(S("This speaks tus {version}; say so in Tus-Resumable.", version=VERSION))
                response = await handle(request)
            except ClusterError as e:
                response = problem(e)
            response.headers["Tus-Resumable"] = VERSION
            response.headers["Tus-Version"] = VERSION
            return response

        return answered


router = APIRouter(tags=["uploads"], route_class=TusRoute)


@router.options("/v1/uploads", status_code=204)
@router.options("/v1/uploads/{ident}", status_code=204, include_in_schema=False)
async def about() -> Response:
    """What of the protocol is spoken here."""
    return Response(status_code=204, headers=ABOUT)


@router.post("/v1/uploads", status_code=201, response_class=Response)
async def create(
    core: TheCore,
    user: Asking,
    request: Request,
    upload_length: Annotated[int, Header(ge=0, le=MOST)],
    upload_metadata: Annotated[str, Header(max_length=16_384)] = "",
    content_type: Annotated[str, Header()] = "",
    upload_checksum: Annotated[str | None, Header(max_length=200)] = None,
) -> Response:
    """Begin an upload, and take what the request carries of it already."""
    told = metadata(upload_metadata)
    folder = f"{told['project']}/{told['folder']}" if told.get("project") else told.get("folder", "")
    check = checked(upload_checksum)
    made = await core.uploads.create(user, folder, told.get("path") or told.get("filename", ""), upload_length)
    if content_type == BODY:
        made = await core.uploads.receive(user, made.id, 0, _body(request), check)
    return Response(status_code=201, headers={"Location": f"/v1/uploads/{made.id}", **_state(made)})


@router.head("/v1/uploads/{ident}", response_class=Response)
async def state(core: TheCore, user: Asking, ident: str) -> Response:
    """How far it is."""
    found = await core.uploads.look(user, ident)
    told = {"folder": found.folder, "path": found.path}
    words = ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in told.items())
    more = {"Upload-Length": str(found.length), "Upload-Metadata": words, "Cache-Control": "no-store"}
    return Response(status_code=200, headers={**_state(found), **more})


@router.patch("/v1/uploads/{ident}", status_code=204)
async def receive(
    core: TheCore,
    user: Asking,
    request: Request,
    ident: str,
    upload_offset: Annotated[int, Header(ge=0, le=MOST)],
    content_type: Annotated[str, Header()] = "",
    upload_checksum: Annotated[str | None, Header(max_length=200)] = None,
) -> Response:
    """More of it, from `Upload-Offset` on. The answer comes when that is on the disk."""
    if content_type != BODY:
        raise NoSuchBody(S("A part of a file is sent as {type}.", type=BODY))
    found = await core.uploads.receive(user, ident, upload_offset, _body(request), checked(upload_checksum))
    return Response(status_code=204, headers=_state(found))


@router.delete("/v1/uploads/{ident}", status_code=204)
async def give_up(core: TheCore, user: Asking, ident: str) -> Response:
    """End it, and forget what has arrived."""
    await core.uploads.give_up(user, ident)
    return Response(status_code=204)


def metadata(header: str) -> dict[str, str]:
    """`key base64,key base64,key` as tus has it. Raises `Invalid`."""
    found: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in header.split(","))):
        key, _, value = pair.partition(" ")
        try:
            found[key] = base64.b64decode(value, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as e:
            raise Invalid(S("{key} in Upload-Metadata is not UTF-8 in Base64.", key=key)) from e
    return found


def checked(header: str | None) -> Check | None:
    """`sha1 base64`. Raises `UnknownHash`."""
    if header is None:
        return None
    name, _, value = header.partition(" ")
    if name not in HASHES:
        raise UnknownHash(S("Checksums are made by {names}, not by {name}.", names=", ".join(HASHES), name=name))
    try:
        return Check(hashlib.new(name, usedforsecurity=False), base64.b64decode(value, validate=True))
    except binascii.Error as e:
        raise UnknownHash(S("The checksum is not Base64.")) from e


async def _body(request: Request) -> AsyncIterator[bytes]:
    """What comes, as long as it comes."""
    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect as e:
        raise ConnectionResetError from e


def _state(found: Upload) -> dict[str, str]:
    return {"Upload-Offset": str(found.offset), "Upload-Expires": format_datetime(found.expires, usegmt=True)}
