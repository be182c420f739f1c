"""Resumable uploads, by the public client (`tuspy`) against a server that listens, and by hand where it matters."""

import asyncio
import base64
import hashlib
import io
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from tusclient.client import TusClient
from tusclient.exceptions import TusCommunicationError

from cluster.api.app import create_app
from cluster.core import Core
from cluster.db.tables import QuotaRow, UploadRow
from cluster.models import CreateFolder, DeleteFolder, RestoreFolder, ShareFolder
from cluster.simulator.lab import Lab
from cluster.storage import incoming

MIB = 2**20
BODY = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"}


@pytest.fixture
async def url(lab: Lab) -> AsyncIterator[str]:
    """The lab's API, listening."""
    server = uvicorn.Server(
        uvicorn.Config(create_app(lab.core), port=0, log_level="warning", lifespan="off", timeout_graceful_shutdown=2)
    )
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    await serving


@pytest.fixture
async def http(lab: Lab, url: str) -> AsyncIterator[httpx.AsyncClient]:
    token = await lab.core.token_for("ann")
    headers = {"Authorization": f"Bearer {token}", "Tus-Resumable": "1.0.0"}
    async with httpx.AsyncClient(base_url=url, headers=headers) as client:
        yield client


def directory(lab: Lab, name: str = "data") -> Path:
    return lab.core.data_dir / "volumes" / "red" / name


def waiting(lab: Lab) -> list[Path]:
    """What lies between arrival and its folder."""
    where = lab.core.data_dir / "volumes" / ".uploads"
    return sorted(where.iterdir()) if where.is_dir() else []


def told(**words: str) -> str:
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in words.items())


async def begin(http: httpx.AsyncClient, length: int, path: str = "x.bin", folder: str = "data", **more: Any) -> Any:
    headers = {"Upload-Length": str(length), "Upload-Metadata": told(folder=folder, path=path).rstrip(), **more}
    return await http.post("/v1/uploads", headers=headers)


async def send(http: httpx.AsyncClient, where: str, offset: int, data: bytes, **more: str) -> httpx.Response:
    return await http.patch(where, content=data, headers={**BODY, "Upload-Offset": str(offset), **more})


async def offset(http: httpx.AsyncClient, where: str) -> int:
    reply = await http.head(where)
    assert reply.status_code == 200, (reply.status_code, reply.headers)
    return int(reply.headers["upload-offset"])


# ── the public client ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("checksum", [False, True])
async def test_the_public_client_uploads_a_file_in_pieces(
    lab: Lab, url: str, http: httpx.AsyncClient, tmp_path: Path, checksum: bool
) -> None:
    await lab.ann.execute(CreateFolder(name="data"))
    source = tmp_path / "source.bin"
    source.write_bytes(os.urandom(3 * MIB + 17))
    client = TusClient(f"{url}/v1/uploads", headers={"Authorization": http.headers["authorization"]})
    words = {"folder": "data", "path": "가/b.bin"}
    with source.open("rb") as file:
        uploader = client.uploader(file_stream=file, chunk_size=MIB, metadata=words, upload_checksum=checksum)
        await asyncio.to_thread(uploader.upload)
    assert (directory(lab) / "가" / "b.bin").read_bytes() == source.read_bytes()
    assert waiting(lab) == []
    assert [f.size for f in (await lab.ann.folders()).items] == [3 * MIB + 17]


async def test_the_public_client_goes_on_after_it_was_stopped(
    lab: Lab, url: str, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    await lab.ann.execute(CreateFolder(name="data"))
    source = tmp_path / "source.bin"
    source.write_bytes(os.urandom(2 * MIB))
    client = TusClient(f"{url}/v1/uploads", headers={"Authorization": http.headers["authorization"]})
    words = {"folder": "data", "path": "b.bin"}
    with source.open("rb") as file:
        first = client.uploader(file_stream=file, chunk_size=MIB, metadata=words)
        await asyncio.to_thread(first.upload_chunk)
    with source.open("rb") as file:
        again = await asyncio.to_thread(client.uploader, file_stream=file, chunk_size=MIB, url=first.url)
        assert again.offset == MIB
        await asyncio.to_thread(again.upload)
    assert (directory(lab) / "b.bin").read_bytes() == source.read_bytes()


async def test_the_public_client_is_refused_in_a_folder_of_others(lab: Lab, url: str, http: httpx.AsyncClient) -> None:
    await lab.eve.execute(CreateFolder(name="secret"))
    client = TusClient(f"{url}/v1/uploads", headers={"Authorization": http.headers["authorization"]})
    uploader = client.uploader(file_stream=io.BytesIO(b"x"), metadata={"folder": "secret", "path": "x"})
    with pytest.raises(TusCommunicationError):
        await asyncio.to_thread(uploader.upload)
    assert waiting(lab) == []


# ── the protocol ─────────────────────────────────────────────────────────────────────────────────


async def test_what_the_server_speaks_is_told_without_a_token(url: str) -> None:
    async with httpx.AsyncClient(base_url=url) as stranger:
        told = (await stranger.options("/v1/uploads")).headers
        assert told["tus-version"] == "1.0.0"
        assert set(told["tus-extension"].split(",")) >= {"creation", "termination", "expiration", "checksum"}
        assert (await stranger.post("/v1/uploads", headers={"Tus-Resumable": "1.0.0"})).status_code in (401, 422)


async def test_another_version_of_the_protocol_is_refused_with_ours(lab: Lab, http: httpx.AsyncClient) -> None:
    reply = await http.head("/v1/uploads/x", headers={"Tus-Resumable": "0.2.2"})
    assert (reply.status_code, reply.headers["tus-version"]) == (412, "1.0.0")


async def test_who_has_no_token_is_told_that_before_anything_of_the_protocol(url: str) -> None:
    async with httpx.AsyncClient(base_url=url) as stranger:
        for method, path in (("POST", "/v1/uploads"), ("PATCH", "/v1/uploads/x"), ("HEAD", "/v1/uploads/x")):
            reply = await stranger.request(method, path)
            assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer")
            assert reply.headers["tus-version"] == "1.0.0"


async def test_an_upload_may_come_with_its_beginning(lab: Lab, http: httpx.AsyncClient) -> None:
    await lab.ann.execute(CreateFolder(name="data"))
    headers = {**BODY, "Upload-Length": "5", "Upload-Metadata": told(folder="data", filename="x")}
    reply = await http.post("/v1/uploads", headers=headers, content=b"hello")
    assert (reply.status_code, reply.headers["upload-offset"]) == (201, "5")
    assert (directory(lab) / "x").read_bytes() == b"hello"


async def test_an_empty_file_is_there_as_soon_as_it_is_begun(lab: Lab, http: httpx.AsyncClient) -> None:
    await lab.ann.execute(CreateFolder(name="data"))
    assert (await begin(http, 0)).status_code == 201
    assert (directory(lab) / "x.bin").read_bytes() == b""


async def test_a_wrong_offset_says_the_right_one_and_changes_nothing(lab: Lab, http: httpx.AsyncClient) -> None:
    await lab.ann.execute(CreateFolder(name="data"))
    where = (await begin(http, 10)).headers["location"]
    await send(http, where, 0, b"abc")
    for wrong in (0, 2, 4, 10):
        reply = await send(http, where, wrong, b"zz")
        assert (reply.status_code, reply.json()["code"]) == (409, "conflict")
        assert "at 3 bytes" in reply.json()["detail"]
    assert await offset(http, where) == 3


async def test_more_than_was_announced_is_refused_and_what_fits_can_still_come(
    lab: Lab, http: httpx.AsyncClient
) -> None:
    await lab.ann.execute(CreateFolder(name="data"))
    where = (await begin(http, 4)).headers["location"]
    assert (await send(http, where, 0, b"12345")).status_code == 413
    assert await offset(http, where) == 0
    assert (await send(http, where, 0, b"1234")).status_code == 204
    assert (directory(lab) / "x.bin").read_bytes() == b"1234"


async def test_a_piece_that_does_not_fit_its_checksum_is_put_away(lab: Lab, http: httpx.AsyncClient) -> None:
    await lab.ann.execute(CreateFolder(name="data"))
    where = (await begin(http, 8)).headers["location"]
    await send(http, where, 0, b"good")
    right = base64.b64encode(hashlib.sha1(b"ness", usedforsecurity=False).digest()).decode()
    bad = await send(http, where, 4, b"nass", **{"Upload-Checksum": f"sha1 {right}"})
    assert bad.status_code == 460
    assert await offset(http, where) == 4
    assert (await send(http, where, 4, b"ness", **{"Upload-Checksum": f"sha1 {right}"})).status_code == 204
    assert (directory(lab) / "x.bin").read_bytes() == b"goodness"


async def test_ending_an_upload_removes_what_arrived(lab: Lab, http: httpx.AsyncClient) -> None:
    await lab.ann.execute(CreateFolder(name="data"))
    where = (await begin(http, 8)).headers["location"]
    await send(http, where, 0, b"good")
    assert (await http.delete(where)).status_code == 204
    assert (await http.head(where)).status_code == 404
    assert waiting(lab) == []


async def test_a_finished_upload_is_known_to_a_client_that_did_not_hear_of_it(
    lab: Lab, http: httpx.AsyncClient
) -> None:
    await lab.ann.execute(CreateFolder(name="data"))
    where = (await begin(http, 4)).headers["location"]
    await send(http, where, 0, b"1234")
    assert await offset(http, where) == 4
    assert (await send(http, where, 4, b"")).status_code == 204


async def test_another_person_knows_nothing_of_an_upload(lab: Lab, http: httpx.AsyncClient, url: str) -> None:
    await lab.ann.execute(CreateFolder(name="data"))
    where = (await begin(http, 4)).headers["location"]
    token = await lab.core.token_for("bob")
    headers = {"Authorization": f"Bearer {token}", "Tus-Resumable": "1.0.0"}
    async with httpx.AsyncClient(base_url=url, headers=headers) as bob:
        assert (await bob.head(where)).status_code == 404
        assert (await send(bob, where, 0, b"evil")).status_code == 404
        assert (await bob.delete(where)).status_code == 404
    assert await offset(http, where) == 0


# ── broken connections ───────────────────────────────────────────────────────────────────────────


async def test_what_arrived_before_the_connection_broke_is_kept(lab: Lab, http: httpx.AsyncClient) -> None:
    await lab.ann.execute(CreateFolder(name="data"))
    data = os.urandom(4 * MIB)
    where = (await begin(http, len(data))).headers["location"]
    arrived = 0
    for _ in range(3):
        with suppress(httpx.HTTPError):
            await http.patch(where, content=breaking(data[arrived:], MIB), headers=patching(arrived, len(data)))
        now = await offset(http, where)
        assert arrived <= now <= arrived + MIB
        arrived = now
    for _ in range(5):
        arrived = await offset(http, where)  # of an old connection, something may come in at any time
        if (await send(http, where, arrived, data[arrived:])).status_code == 204:
            break
    assert (directory(lab) / "x.bin").read_bytes() == data


def patching(at: int, length: int) -> dict[str, str]:
    return {**BODY, "Upload-Offset": str(at), "Content-Length": str(length - at)}


async def breaking(data: bytes, after: int) -> AsyncIterator[bytes]:
    """Sends so much, then the connection is gone."""
    yield data[:after]
    raise httpx.WriteError("cut")


async def test_a_new_connection_takes_over_from_one_that_hangs(lab: Lab, http: httpx.AsyncClient) -> None:
    await lab.ann.execute(CreateFolder(name="data"))
    where = (await begin(http, 8)).headers["location"]
    reader, writer = await asyncio.open_connection(http.base_url.host, http.base_url.port)
    head = {**patching(0, 8), "Host": "x", "Authorization": http.headers["authorization"]}
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    writer.write(f"PATCH {where} HTTP/1.1\r\n{lines}\r\ngood".encode())
    while not lab.core.uploads.receiving:
        await asyncio.sleep(0)
    arrived = await offset(http, where)
    assert b" 409 " in await reader.readline()
    writer.close()
    assert (await send(http, where, arrived, b"goodness"[arrived:])).status_code == 204
    assert (directory(lab) / "x.bin").read_bytes() == b"goodness"


# ── into the folder ──────────────────────────────────────────────────────────────────────────────


async def test_a_file_of_the_name_is_replaced_by_the_whole_new_one(lab: Lab, http: httpx.AsyncClient) -> None:
    await lab.ann.execute(CreateFolder(name="data"))
    (directory(lab) / "x.bin").write_bytes(b"old and long")
    where = (await begin(http, 3)).headers["location"]
    await send(http, where, 0, b"ne")
    assert (directory(lab) / "x.bin").read_bytes() == b"old and long"
    await send(http, where, 2, b"w")
    assert (directory(lab) / "x.bin").read_bytes() == b"new"
    assert waiting(lab) == []


@pytest.mark.parametrize("path", ["../out", "/etc/passwd", "a/../../out", "", "a\0b", "x" * 300, "dir/", "a/./b"])
async def test_a_path_that_leads_elsewhere_is_refused(lab: Lab, http: httpx.AsyncClient, path: str) -> None:
    await lab.ann.execute(CreateFolder(name="data"))
    reply = await begin(http, 4, path)
    assert (reply.status_code, reply.json()["code"]) == (422, "invalid")
    assert waiting(lab) == []


async def test_nothing_is_written_through_a_link(lab: Lab, http: httpx.AsyncClient, tmp_path: Path) -> None:
    await lab.ann.execute(CreateFolder(name="data"))
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine").write_bytes(b"mine")
    (directory(lab) / "dir").symlink_to(outside)
    (directory(lab) / "link").symlink_to(outside / "mine")
    through = (await begin(http, 4, "dir/new")).headers["location"]
    reply = await send(http, through, 0, b"evil")
    assert (reply.status_code, reply.json()["code"]) == (409, "conflict")
    over = (await begin(http, 4, "link")).headers["location"]
    assert (await send(http, over, 0, b"good")).status_code == 204
    assert sorted(p.name for p in outside.iterdir()) == ["mine"]
    assert (outside / "mine").read_bytes() == b"mine"
    assert (directory(lab) / "link").read_bytes() == b"good"
    assert not (directory(lab) / "link").is_symlink()


async def test_a_directory_is_not_replaced_by_a_file(lab: Lab, http: httpx.AsyncClient) -> None:
    await lab.ann.execute(CreateFolder(name="data"))
    (directory(lab) / "x.bin").mkdir()
    where = (await begin(http, 4)).headers["location"]
    reply = await send(http, where, 0, b"1234")
    assert (reply.status_code, reply.json()["detail"]) == (409, "x.bin is a folder; give the file another name.")
    (directory(lab) / "x.bin").rmdir()
    assert (await send(http, where, 4, b"")).status_code == 204
    assert (directory(lab) / "x.bin").read_bytes() == b"1234"


async def test_an_upload_into_a_folder_in_the_trash_waits_for_it(lab: Lab, http: httpx.AsyncClient) -> None:
    await lab.ann.execute(CreateFolder(name="data"))
    where = (await begin(http, 4)).headers["location"]
    await lab.ann.execute(DeleteFolder(folder="data"))
    reply = await send(http, where, 0, b"1234")
    assert reply.status_code == 409
    assert "in the trash" in reply.json()["detail"]
    await lab.ann.execute(RestoreFolder(folder="data"))
    assert (await send(http, where, 4, b"")).status_code == 204
    assert (directory(lab) / "x.bin").read_bytes() == b"1234"


async def test_who_may_only_read_a_shared_folder_does_not_upload_to_it(lab: Lab, http: httpx.AsyncClient) -> None:
    await lab.eve.execute(CreateFolder(name="theirs"))
    await lab.eve.execute(ShareFolder(folder="theirs", permission="read", user="ann"))
    reply = await begin(http, 4, folder="theirs")
    assert (reply.status_code, reply.json()["code"]) == (403, "not_allowed")
    await lab.eve.execute(ShareFolder(folder="theirs", permission="write", user="ann"))
    assert (await begin(http, 4, folder="theirs")).status_code == 201


# ── quotas and time ──────────────────────────────────────────────────────────────────────────────


async def test_an_upload_takes_its_room_from_its_first_moment_on(lab: Lab, http: httpx.AsyncClient) -> None:
    await lab.ann.execute(CreateFolder(name="data", quota=100))
    assert (await begin(http, 60, "a")).status_code == 201
    reply = await begin(http, 60, "b")
    assert (reply.status_code, reply.json()["code"]) == (507, "storage_full")
    assert reply.json()["detail"] == "60 B more do not fit into data: 60 B of 100 B are used."
    where = (await begin(http, 40, "b")).headers["location"]
    await http.delete(where)
    assert (await begin(http, 40, "c")).status_code == 201


@pytest.mark.parametrize(("scope", "name"), [("project", "red"), ("user", "ann")])
async def test_what_a_project_or_a_person_may_store_holds_over_all_folders(
    lab: Lab, http: httpx.AsyncClient, scope: str, name: str
) -> None:
    async with lab.core.db.write() as db:
        db.add(QuotaRow(scope=scope, name=name, storage=100))
    for folder in ("one", "two"):
        await lab.ann.execute(CreateFolder(name=folder))
    assert (await begin(http, 60, folder="one")).status_code == 201
    reply = await begin(http, 60, folder="two")
    assert (reply.status_code, reply.json()["code"]) == (507, "storage_full")
    assert name in reply.json()["detail"]


async def test_an_upload_without_progress_is_given_up_after_a_day(lab: Lab, http: httpx.AsyncClient) -> None:
    await lab.ann.execute(CreateFolder(name="data", quota=100))
    where = (await begin(http, 60)).headers["location"]
    await lab.later(23 * 3600)
    await send(http, where, 0, b"it lives")
    await lab.later(23 * 3600)
    assert await offset(http, where) == 8
    await lab.later(2 * 3600)
    assert (await http.head(where)).status_code == 404
    assert waiting(lab) == []
    assert (await begin(http, 100)).status_code == 201
    assert "upload_given_up" in {e.kind for e in (await lab.ann.events()).items}


# ── crashes ──────────────────────────────────────────────────────────────────────────────────────


async def test_a_crash_between_rename_and_commit_is_mended_at_the_next_start(
    lab: Lab, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    await lab.ann.execute(CreateFolder(name="data"))
    where = (await begin(http, 4)).headers["location"]
    ident = where.rsplit("/", 1)[1]
    root = lab.core.data_dir / "volumes"
    incoming.place(root, ident).write_bytes(b"1234")
    incoming.land(root, ident, directory(lab), ["x.bin"])
    incoming.place(root, "nobodys").write_bytes(b"left over")
    again = await Core.open(lab.core.db.where, clock=lab.clock, data_dir=tmp_path, name="lab")
    async with again.db.read() as db:
        row = await db.get(UploadRow, ident)
    assert row is not None
    assert row.finished is not None
    assert waiting(lab) == []
    await again.close()


async def test_a_commit_that_fails_puts_the_file_back(
    lab: Lab, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await lab.ann.execute(CreateFolder(name="data"))
    (directory(lab) / "x.bin").write_bytes(b"before")
    where = (await begin(http, 4)).headers["location"]
    land = incoming.land

    def lands_and_fails(root: Path, ident: str, top: Path, parts: list[str]) -> None:
        land(root, ident, top, parts)
        incoming.take_back(root, ident, top, parts)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(incoming, "land", lands_and_fails)
    with suppress(httpx.HTTPError):
        await send(http, where, 0, b"1234")
    assert (directory(lab) / "x.bin").read_bytes() == b"before"
    monkeypatch.undo()
    assert (await send(http, where, 4, b"")).status_code == 204
    assert (directory(lab) / "x.bin").read_bytes() == b"1234"
