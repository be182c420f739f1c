"""Storage through a server that is killed: an upload and a clone go on where they were, or anew, never half."""

import asyncio
import base64
import hashlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from cluster.client import Client
from cluster.models import CloneFolder, CreateFolder
from evals.benchmarks.upload import served

pytestmark = pytest.mark.slow
MIB = 1 << 20


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "source.bin"
    path.write_bytes(os.urandom(48 * MIB))
    yield path
    path.unlink()


def same(one: Path, other: Path) -> bool:
    return hashlib.sha256(one.read_bytes()).digest() == hashlib.sha256(other.read_bytes()).digest()


async def test_an_upload_goes_on_after_the_server_was_killed_in_the_middle(tmp_path: Path, source: Path) -> None:
    data, arrived = tmp_path / "data", 0
    words = f"folder {base64.b64encode(b'big').decode()},path {base64.b64encode(b'x.bin').decode()}"
    size = source.stat().st_size
    where = ""
    for turn in range(4):
        async with served(data) as said:
            headers = {"Authorization": f"Bearer {said['token']}", "Tus-Resumable": "1.0.0"}
            async with httpx.AsyncClient(base_url=said["url"], headers=headers, timeout=30) as http:
                if not where:
                    await made(said, CreateFolder(name="big"))
                    more = {"Upload-Length": str(size), "Upload-Metadata": words}
                    where = (await http.post("/v1/uploads", headers=more)).headers["location"]
                at = int((await http.head(where)).headers["upload-offset"])
                assert at >= arrived
                arrived = at
                kill = int(said["pid"]) if turn < 3 else 0
                with suppress(httpx.TransportError):
                    reply = await http.patch(where, content=sent(source, at, kill), headers=patching(at, size))
                    assert reply.status_code == 204
    assert arrived > 0
    assert same(data / "volumes" / "default" / "big" / "x.bin", source)
    assert list((data / "volumes" / ".uploads").iterdir()) == []


async def made(said: dict[str, str], operation: CreateFolder | CloneFolder) -> None:
    client = Client.connect(said["url"], said["token"])
    outcome = await client.execute(operation)
    assert not outcome.refused
    await client.close()


def patching(at: int, size: int) -> dict[str, str]:
    kind = "application/offset+octet-stream"
    return {"Content-Type": kind, "Upload-Offset": str(at), "Content-Length": str(size - at)}


async def sent(source: Path, at: int, kill: int) -> AsyncIterator[bytes]:
    """From `at` on; after 12 MiB the server `kill` dies."""
    with source.open("rb") as file:
        file.seek(at)
        for count in range(1 << 20):
            if kill and count == 12:
                os.kill(kill, signal.SIGKILL)
            if not (data := file.read(MIB)):
                return
            yield data


async def test_a_clone_is_whole_after_the_server_was_killed_on_the_way(tmp_path: Path, source: Path) -> None:
    data = tmp_path / "data"
    volumes = data / "volumes" / "default"
    async with served(data) as said:
        await made(said, CreateFolder(name="big"))
        for i in range(400):
            (volumes / "big" / f"{i:03}.bin").write_bytes(os.urandom(1 << 16))
        await made(said, CloneFolder(folder="big", name="copy"))
        hidden = data / "volumes" / ".clones"
        while not (hidden.is_dir() and any(hidden.iterdir())) and not (volumes / "copy").exists():
            await asyncio.sleep(0.001)
        os.kill(int(said["pid"]), signal.SIGKILL)
    half = not (volumes / "copy").exists()
    async with served(data) as said:
        client = Client.connect(said["url"], said["token"])
        while {f.name: f.state for f in (await client.folders()).items}["copy"] == "cloning":
            await asyncio.sleep(0.05)
        copy = next(f for f in (await client.folders()).items if f.name == "copy")
        await client.close()
    assert half, "the copy was faster than the kill"
    assert (copy.state, copy.size) == ("ready", 400 << 16)
    names = sorted(p.name for p in (volumes / "big").iterdir())
    assert sorted(p.name for p in (volumes / "copy").iterdir()) == names
    assert all(same(volumes / "big" / name, volumes / "copy" / name) for name in names)
    assert list(hidden.iterdir()) == []
