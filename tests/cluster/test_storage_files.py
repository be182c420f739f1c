"""Listing and downloading what is in a folder, though sessions put what they like into it."""

import asyncio
import os
import unicodedata
from pathlib import Path

import httpx
import pytest

from cluster import errors
from cluster.api.app import create_app
from cluster.models import CreateFolder, ShareFolder
from cluster.simulator.lab import Lab
from cluster.storage import beneath


def directory(lab: Lab, name: str = "data") -> Path:
    return lab.core.data_dir / "volumes" / "red" / name


@pytest.fixture
async def http(lab: Lab) -> httpx.AsyncClient:
    await lab.ann.execute(CreateFolder(name="data"))
    headers = {"Authorization": f"Bearer {await lab.core.token_for('ann')}"}
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(create_app(lab.core)), base_url="http://lab", headers=headers
    )


FILE = "/v1/folders/data/files/x.bin"


async def test_a_directory_is_listed_sorted_and_in_pages(lab: Lab, http: httpx.AsyncClient) -> None:
    for i in range(5):
        (directory(lab) / f"f{i}").write_bytes(b"x" * i)
    (directory(lab) / "sub" / "deep").mkdir(parents=True)
    (directory(lab) / "link").symlink_to("/etc/shadow")
    os.mkfifo(directory(lab) / "pipe")
    page = await lab.ann.files("data", limit=3)
    assert ([f.name for f in page.items], page.total) == (["f0", "f1", "f2"], 8)
    rest = await lab.ann.files("data", offset=3, limit=100)
    assert [(f.name, f.kind) for f in rest.items[2:]] == [("link", "link"), ("pipe", "other"), ("sub", "folder")]
    largest = await lab.ann.files("red/data", sort_by="size", limit=2)
    assert [(f.name, f.size) for f in largest.items] == [("f4", 4), ("f3", 3)]
    assert [f.name for f in (await lab.ann.files("data", "sub")).items] == ["deep"]
    await http.aclose()


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("link", "conflict"),
        ("out", "conflict"),
        ("out/secret", "conflict"),
        ("pipe", "conflict"),
        ("sub", "conflict"),
        ("%2Fetc%2Fshadow", "invalid"),
        ("sub/..%2F..%2Fx", "invalid"),
        ("a%00b", "invalid"),
        ("x" * 300, "invalid"),
        ("nothing", "not_found"),
        ("x.bin/y", "conflict"),
    ],
)
async def test_nothing_but_a_file_inside_the_folder_is_read(
    lab: Lab, http: httpx.AsyncClient, tmp_path: Path, path: str, code: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    top = directory(lab)
    (top / "x.bin").write_bytes(b"x")
    (top / "link").symlink_to("/etc/shadow")
    (top / "out").symlink_to(outside)
    (top / "sub").mkdir()
    os.mkfifo(top / "pipe")
    reply = await asyncio.wait_for(http.get(f"/v1/folders/data/files/{path}"), 10)
    assert reply.json()["code"] == code
    assert reply.headers["content-type"] == "application/problem+json"
    await http.aclose()


def test_a_directory_that_is_swapped_for_a_link_between_two_looks_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top, outside = tmp_path / "top", tmp_path / "outside"
    (top / "dir").mkdir(parents=True)
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    real = os.stat

    def swaps(path: object, **more: object) -> os.stat_result:
        if path == "secret" and (top / "dir").is_dir() and not (top / "dir").is_symlink():
            (top / "dir").rename(top / "moved")
            (top / "dir").symlink_to(outside)
        return real(path, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(beneath.os, "stat", swaps)
    with pytest.raises(errors.NotFound):
        beneath.file(top, ["dir", "secret"])
    with pytest.raises(errors.Conflict):
        beneath.file(top, ["dir", "secret"])


async def test_a_part_of_a_file_comes_by_its_range(lab: Lab, http: httpx.AsyncClient) -> None:
    (directory(lab) / "x.bin").write_bytes(b"0123456789")
    whole = await http.get(FILE)
    assert (whole.status_code, whole.content, whole.headers["accept-ranges"]) == (200, b"0123456789", "bytes")
    assert whole.headers["content-disposition"].startswith("attachment")
    assert whole.headers["x-content-type-options"] == "nosniff"
    part = await http.get(FILE, headers={"Range": "bytes=3-5"})
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"345", "bytes 3-5/10")
    rest = await http.get(FILE, headers={"Range": "bytes=7-", "If-Range": whole.headers["etag"]})
    assert (rest.status_code, rest.content) == (206, b"789")
    head = await http.head(FILE)
    assert (head.status_code, head.headers["content-length"], head.content) == (200, "10", b"")
    await http.aclose()


@pytest.mark.parametrize(("asked", "status"), [("bytes=10-20", 416), ("bytes=-", 400), ("lines=1-2", 400)])
async def test_a_range_that_can_not_be_had_is_a_problem_document(
    lab: Lab, http: httpx.AsyncClient, asked: str, status: int
) -> None:
    (directory(lab) / "x.bin").write_bytes(b"0123456789")
    reply = await http.get(FILE, headers={"Range": asked})
    assert (reply.status_code, reply.headers["content-type"]) == (status, "application/problem+json")
    assert (reply.json()["code"], reply.json()["status"]) == ("invalid", status)
    assert reply.headers.get("content-range") == ("bytes */10" if status == 416 else None)
    assert (await http.get(FILE)).content == b"0123456789"
    await http.aclose()


async def test_a_file_that_changed_meanwhile_comes_whole(lab: Lab, http: httpx.AsyncClient) -> None:
    path = directory(lab) / "x.bin"
    path.write_bytes(b"0123456789")
    before = path.stat()
    tag = (await http.head(FILE)).headers["etag"]
    path.write_bytes(b"9876543210")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    reply = await http.get(FILE, headers={"Range": "bytes=5-", "If-Range": tag})
    assert (reply.status_code, reply.content) == (200, b"9876543210")
    await http.aclose()


async def test_a_hangul_name_is_found_however_it_is_written(lab: Lab, http: httpx.AsyncClient) -> None:
    decomposed = unicodedata.normalize("NFD", "고양이.txt")
    (directory(lab) / decomposed).write_bytes(b"meow")
    for name in (decomposed, "고양이.txt"):
        assert (await http.get(f"/v1/folders/data/files/{name}")).content == b"meow"
    await http.aclose()


async def test_who_may_not_see_a_folder_is_told_that_there_is_none(lab: Lab, http: httpx.AsyncClient) -> None:
    (directory(lab) / "x.bin").write_bytes(b"x")
    with pytest.raises(errors.NotFound):
        await lab.eve.files("data")
    await lab.ann.execute(ShareFolder(folder="data", permission="read", user="eve"))
    assert [f.name for f in (await lab.eve.files("data")).items] == ["x.bin"]
    await http.aclose()
