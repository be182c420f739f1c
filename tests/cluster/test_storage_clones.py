"""Clones: copied out of sight, there all at once or not at all, whatever happens on the way."""

import asyncio
import os
import socket
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from cluster.core import Core
from cluster.models import CloneFolder, CreateFolder, DeleteFolder, Folder, StartSession, Undo
from cluster.simulator.lab import Lab
from cluster.simulator.world import World
from cluster.storage import clones, copying
from cluster.storage.copying import Progress


def directory(lab: Lab, name: str = "data") -> Path:
    return lab.core.data_dir / "volumes" / "red" / name


def hidden(lab: Lab) -> list[Path]:
    where = lab.core.data_dir / "volumes" / ".clones"
    return sorted(where.iterdir()) if where.is_dir() else []


async def until_done(lab: Lab) -> None:
    """Two passes: one begins the copy, the other writes down how it ended."""
    await lab.core.schedule_pass()
    await lab.core.clones.rest()
    await lab.core.schedule_pass()


async def folder(lab: Lab, name: str) -> Folder:
    return next(f for f in (await lab.ann.folders()).items if f.name == name)


async def test_a_clone_is_complete_or_not_there(lab: Lab) -> None:
    await lab.ann.execute(CreateFolder(name="data"))
    (directory(lab) / "가").mkdir()
    (directory(lab) / "가" / "x").write_bytes(b"hello")
    outcome = await lab.ann.execute(CloneFolder(folder="data", name="copy"))
    assert "becomes a copy of data (5 B)" in str(outcome.effects[0].message)
    assert (await folder(lab, "copy")).state == "cloning"
    assert not directory(lab, "copy").exists()
    start = StartSession(command="x", mounts=["copy"])
    await lab.node("n1")
    assert "still being copied" in str((await lab.ann.execute(start)).refused[0].message)
    await until_done(lab)
    copy = await folder(lab, "copy")
    assert (copy.state, copy.size, copy.owner) == ("ready", 5, "ann")
    assert (directory(lab, "copy") / "가" / "x").read_bytes() == b"hello"
    assert hidden(lab) == []
    await lab.ann.execute(Undo())
    assert (await lab.ann.names()).trashed_folders == ["copy"]


def hostile(top: Path, outside: Path) -> None:
    """What a session can leave in its folder."""
    (top / "shadow").symlink_to("/etc/shadow")
    (top / "up").symlink_to("../../..")
    (top / "out").symlink_to(outside)
    os.mkfifo(top / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(top / "socket"))
    (top / ("x" * 255)).write_bytes(b"long")
    (top / os.fsdecode(b"\xff\xfe")).write_bytes(b"no text")
    (top / "setuid").write_bytes(b"#!")
    (top / "setuid").chmod(0o4755)
    os.link(top / "setuid", top / "again")
    with (top / "holes").open("wb") as file:
        file.truncate(1 << 30)
        file.seek(1 << 20)
        file.write(b"data")


async def test_links_pipes_and_holes_do_no_harm(lab: Lab, tmp_path: Path) -> None:
    await lab.ann.execute(CreateFolder(name="data"))
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    hostile(directory(lab), outside)
    await lab.ann.execute(CloneFolder(folder="data", name="copy"))
    await until_done(lab)
    copy = directory(lab, "copy")
    assert (await folder(lab, "copy")).state == "ready"
    assert os.readlink(copy / "shadow") == "/etc/shadow"
    assert (copy / "out").is_symlink()
    assert not (copy / "pipe").exists()
    assert (copy / "setuid").stat().st_mode & 0o7777 == 0o755
    assert (copy / "setuid").stat().st_ino == (copy / "again").stat().st_ino
    assert (copy / "holes").stat().st_blocks * 512 < 1 << 22
    assert (copy / "holes").stat().st_size == 1 << 30
    with (copy / "holes").open("rb") as file:
        file.seek(1 << 20)
        assert file.read(4) == b"data"
    assert (copy / os.fsdecode(b"\xff\xfe")).read_bytes() == b"no text"
    told = [str(e.message) for e in (await lab.ann.events()).items if e.kind == "folder_cloned"]
    assert told == ["Folder copy is complete.", "2 pipes, sockets or devices were left out of copy."]


def test_a_directory_that_is_swapped_for_a_link_on_the_way_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, outside = tmp_path / "source", tmp_path / "outside"
    (source / "dir").mkdir(parents=True)
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    real = os.stat

    def swaps(path: object, **more: object) -> os.stat_result:
        found = real(path, **more)  # type: ignore[call-overload]
        if path == "dir" and not (source / "dir").is_symlink():
            (source / "dir").rmdir()
            (source / "dir").symlink_to(outside)
        return found

    monkeypatch.setattr(copying.os, "stat", swaps)
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        copying.copy_tree(source, tmp_path / "copy", Progress(most=1000))
    assert not list((tmp_path / "copy").rglob("secret"))


async def test_a_full_disk_fails_the_clone_with_its_reason_and_leaves_nothing(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    await lab.ann.execute(CreateFolder(name="data"))
    (directory(lab) / "x").write_bytes(b"hello")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(copying, "_contents", full)
    await lab.ann.execute(CloneFolder(folder="data", name="copy"))
    await until_done(lab)
    copy = await folder(lab, "copy")
    assert (copy.state, copy.size) == ("failed", 0)
    assert [str(r.message) for r in copy.reasons] == [
        "copy could not be copied.",
        "It could not be copied: No space left on device.",
    ]
    assert (hidden(lab), directory(lab, "copy").exists()) == ([], False)
    await lab.ann.execute(DeleteFolder(folder="copy"))
    assert [f.name for f in (await lab.ann.folders()).items] == ["data"]


async def test_a_source_that_grows_beyond_what_was_reserved_fails_the_clone(lab: Lab) -> None:
    await lab.ann.execute(CreateFolder(name="data"))
    (directory(lab) / "x").write_bytes(b"hello")
    await lab.ann.execute(CloneFolder(folder="data", name="copy"))
    (directory(lab) / "y").write_bytes(b"more than that")
    await until_done(lab)
    assert "grew meanwhile" in str((await folder(lab, "copy")).reasons[1].message)


async def test_a_clone_that_does_not_move_fails(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    await lab.ann.execute(CreateFolder(name="data"))
    (directory(lab) / "x").write_bytes(b"hello")

    stuck = threading.Event()

    def hangs(_source: int, _target: int, _size: int, progress: Progress) -> None:
        progress.go_on()
        stuck.set()
        progress.stop.wait()
        raise copying.Stopped

    monkeypatch.setattr(copying, "_contents", hangs)
    await lab.ann.execute(CloneFolder(folder="data", name="copy"))
    await lab.core.schedule_pass()
    assert await asyncio.to_thread(stuck.wait, 60)
    await lab.core.schedule_pass()
    lab.clock.advance(clones.STALLED + timedelta(seconds=1))
    await lab.core.schedule_pass()
    copy = await folder(lab, "copy")
    assert (copy.state, str(copy.reasons[1].message)) == ("failed", "It did not move for 10 minutes.")


async def test_a_source_is_not_deleted_while_it_is_copied_and_a_clone_can_be_given_up(lab: Lab) -> None:
    await lab.ann.execute(CreateFolder(name="data"))
    await lab.ann.execute(CloneFolder(folder="data", name="copy"))
    refused = (await lab.ann.execute(DeleteFolder(folder="data"))).refused
    assert str(refused[0].message) == "data is being copied to copy; wait for that, or delete copy first."
    await lab.ann.execute(DeleteFolder(folder="copy"))
    await until_done(lab)
    assert [f.name for f in (await lab.ann.folders()).items] == ["data"]
    assert not directory(lab, "copy").exists()
    assert not (await lab.ann.execute(DeleteFolder(folder="data"))).refused


@pytest.mark.parametrize("renamed", [False, True])
async def test_a_crash_on_the_way_is_mended_at_the_next_start(lab: Lab, tmp_path: Path, renamed: bool) -> None:
    await lab.ann.execute(CreateFolder(name="data"))
    (directory(lab) / "x").write_bytes(b"hello")
    await lab.ann.execute(CloneFolder(folder="data", name="copy"))
    half = lab.core.data_dir / "volumes" / ".clones" / "folder-2"
    copying.copy_tree(directory(lab), half, Progress(most=1000))
    if renamed:
        half.rename(directory(lab, "copy"))
    else:
        (half / "x").write_bytes(b"hel")
    again = await Core.open(lab.core.db.where, clock=lab.clock, data_dir=tmp_path, name="lab")
    for _ in range(2):
        await again.schedule_pass()
        await again.clones.rest()
    await again.schedule_pass()
    assert (directory(lab, "copy") / "x").read_bytes() == b"hello"
    assert hidden(lab) == []
    await again.close()
    assert (await folder(lab, "copy")).state == "ready"


SCENARIO = """
clock: 2026-03-02T09:00:00+09:00
projects: [{name: vision}]
users: [{name: minho, role: admin, projects: [vision]}]
folders: [{name: cats, project: vision, files: [{path: a/b.tar, size: 500g}, {path: c, size: 1k}]}]
"""


async def test_a_simulated_clone_takes_its_time_and_has_the_same_files() -> None:
    world = await World.open(SCENARIO)
    minho = world.client("minho")
    await minho.execute(CloneFolder(folder="cats", name="dogs"))
    await world.settle()
    await world.advance(timedelta(minutes=10))
    assert {f.name: f.state for f in (await minho.folders()).items} == {"cats": "ready", "dogs": "cloning"}
    await world.advance(timedelta(minutes=10))
    assert {f.name: f.state for f in (await minho.folders()).items} == {"cats": "ready", "dogs": "ready"}
    assert [(f.name, f.kind, f.size) for f in (await minho.files("dogs")).items] == [
        ("a", "folder", 0),
        ("c", "file", 1024),
    ]
    assert [f.size for f in (await minho.files("vision/dogs", "a")).items] == [500 * 2**30]
    await minho.close()
    await world.close()
