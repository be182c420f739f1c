"""Deleting for good: single files, directories, and folders whose days in the trash are over."""

import os
from pathlib import Path
from threading import Event

import pytest

from cluster.core import Core
from cluster.db.tables import FolderRow
from cluster.errors import Unavailable
from cluster.models import (
    CloneFolder,
    CreateFolder,
    DeleteFile,
    DeleteFolder,
    InstallModel,
    Outcome,
    ShareFolder,
    StartSession,
    Undo,
)
from cluster.sentence import S
from cluster.simulator.lab import Lab
from cluster.simulator.world import World
from cluster.storage.purging import remove
from cluster.transaction import Transaction

SCENARIO = """
clock: 2026-03-02T09:00:00+09:00
projects: [{name: vision}]
users: [{name: minho, role: admin, projects: [vision]}]
folders:
  - {name: cats, project: vision, files: [{path: a/b.tar, size: 500g}, {path: ab, size: 1k}, {path: c, size: 1k}]}
"""


def place(lab: Lab, name: str = "data") -> Path:
    return lab.core.data_dir / "volumes" / "red" / name


def purging(lab: Lab) -> list[Path]:
    """What is gone for good and still takes room."""
    assert lab.core.volumes is not None
    return lab.core.volumes.discarded()


async def purged(lab: Lab) -> None:
    """The keeper has begun, and what it removes is gone."""
    await lab.core.purges.step()
    await lab.core.purges.rest()


def said(outcome: Outcome) -> str:
    assert not outcome.refused, outcome.refused
    return str(outcome.effects[0].message)


@pytest.fixture
async def data(lab: Lab) -> Path:
    """A folder of ann's with `a.bin` (5 bytes), `logs/1`, `logs/deep/2` (3 bytes each) and a link in `logs`."""
    await lab.ann.execute(CreateFolder(name="data"))
    top = place(lab)
    (top / "logs" / "deep").mkdir(parents=True)
    (top / "a.bin").write_bytes(b"12345")
    (top / "logs" / "1").write_bytes(b"123")
    (top / "logs" / "deep" / "2").write_bytes(b"123")
    (top / "logs" / "link").symlink_to(top / "a.bin")
    async with lab.core.db.write() as db:
        row = await db.get(FolderRow, 1)
        assert row is not None
        row.size = 11
    return top


async def size(lab: Lab) -> int:
    return (await lab.ann.folders()).items[0].size


async def test_a_file_goes_for_good_after_a_preview_that_changes_nothing(lab: Lab, data: Path) -> None:
    preview = await lab.bob.preview(DeleteFile(folder="data", path="a.bin"))
    assert said(preview) == "a.bin (5 B) is deleted from data."
    assert preview.undo is None
    assert [str(w) for w in preview.warnings] == ["It is gone for good: single files don't go to the trash."]
    assert (data / "a.bin").exists()
    outcome = await lab.bob.execute(DeleteFile(folder="data", path="a.bin"))
    assert outcome.audit_id
    assert not (data / "a.bin").exists()
    assert await size(lab) == 6
    assert (await lab.bob.execute(Undo())).refused[0].code == "conflict"
    await purged(lab)
    assert purging(lab) == []


async def test_a_directory_goes_only_when_all_in_it_is_meant(lab: Lab, data: Path) -> None:
    refused = (await lab.ann.execute(DeleteFile(folder="data", path="logs"))).refused
    assert "recursive" in str(refused[0].message)
    assert (data / "logs" / "1").exists()
    outcome = await lab.ann.execute(DeleteFile(folder="data", path="logs/", recursive=True))
    assert said(outcome) == "logs and all in it (files: 3, 6 B) is deleted from data."
    assert sorted(p.name for p in data.iterdir()) == ["a.bin"]
    assert await size(lab) == 5
    await purged(lab)
    assert (purging(lab), (data / "a.bin").read_bytes()) == ([], b"12345")


@pytest.mark.parametrize(
    ("path", "code"),
    [("nothing", "not_found"), ("a.bin/x", "conflict"), ("../data/a.bin", "invalid"), ("/", "invalid"),
     ("link/1", "conflict")],
)  # fmt: skip
async def test_a_path_that_leads_to_no_file_deletes_nothing(lab: Lab, data: Path, path: str, code: str) -> None:
    (data / "link").symlink_to(data / "logs")
    outcome = await lab.ann.execute(DeleteFile(folder="data", path=path, recursive=True))
    assert outcome.refused[0].code == code
    assert len(list(data.rglob("*"))) == 7
    assert await size(lab) == 11


async def test_a_link_is_deleted_and_not_what_it_points_to(lab: Lab, data: Path) -> None:
    await lab.ann.execute(DeleteFile(folder="data", path="logs/link", recursive=True))
    await purged(lab)
    assert not (data / "logs" / "link").is_symlink()
    assert (data / "a.bin").read_bytes() == b"12345"


async def test_only_who_may_write_deletes_files(lab: Lab, data: Path) -> None:
    delete = DeleteFile(folder="data", path="a.bin")
    assert (await lab.eve.execute(delete)).refused[0].code == "not_found"
    await lab.ann.execute(ShareFolder(folder="data", permission="read", user="eve"))
    assert (await lab.eve.execute(delete)).refused[0].code == "not_allowed"
    assert (data / "a.bin").exists()
    await lab.ann.execute(ShareFolder(folder="data", permission="write", user="eve"))
    assert not (await lab.eve.execute(delete)).refused
    assert not (data / "a.bin").exists()


async def test_who_mounts_the_folder_is_named_before_without_names_that_are_others(lab: Lab, data: Path) -> None:
    await lab.ann.execute(ShareFolder(folder="data", permission="write", user="eve"))
    await lab.node("n1")
    await lab.ann.execute(StartSession(command="x", name="zebra", mounts=["data"]))
    delete = DeleteFile(folder="data", path="a.bin")
    assert "mounted by zebra," in str((await lab.bob.preview(delete)).warnings[1])
    told = str((await lab.eve.preview(delete)).warnings[1])
    assert "another project's session" in told
    assert "zebra" not in told


async def test_a_commit_that_fails_puts_the_file_back(lab: Lab, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch = Transaction.touch_disk

    async def touches_and_fails(tx: Transaction) -> None:
        await touch(tx)
        assert not (data / "a.bin").exists()
        raise Unavailable(S("The disk is gone."))

    monkeypatch.setattr(Transaction, "touch_disk", touches_and_fails)
    outcome = await lab.ann.execute(DeleteFile(folder="data", path="a.bin"))
    assert outcome.refused[0].code == "unavailable"
    assert (data / "a.bin").read_bytes() == b"12345"
    assert await size(lab) == 11
    await purged(lab)
    assert purging(lab) == []


async def test_in_a_simulated_cluster_the_files_of_a_directory_go_too() -> None:
    world = await World.open(SCENARIO)
    minho = world.client("minho")
    assert (await minho.execute(DeleteFile(folder="cats", path="a"))).refused
    outcome = await minho.execute(DeleteFile(folder="cats", path="a", recursive=True))
    assert said(outcome) == "a and all in it (files: 1, 500 GiB) is deleted from cats."
    assert [f.name for f in (await minho.files("cats")).items] == ["ab", "c"]
    assert [f.size for f in (await minho.folders()).items] == [2048]
    await minho.close()
    await world.close()


async def test_a_copy_that_one_may_not_see_is_not_named(lab: Lab, data: Path) -> None:
    await lab.ann.execute(ShareFolder(folder="data", permission="read", user="eve"))
    await lab.eve.execute(CloneFolder(folder="data", name="zebra", project="blue"))
    refused = str((await lab.ann.execute(DeleteFolder(folder="data"))).refused[0].message)
    assert refused == "data is being copied by somebody; wait for that."
    assert "zebra" in str((await lab.boss.execute(DeleteFolder(folder="data"))).refused[0].message)


async def test_a_folder_that_a_model_is_served_from_stays(lab: Lab, data: Path) -> None:
    (data / "recipe.yaml").write_text("runtime: command\nlaunch: {command: serve}\n")
    installed = await lab.ann.execute(InstallModel(recipe="data", project="red"))
    assert not installed.refused, installed.refused
    refused = (await lab.bob.execute(DeleteFolder(folder="data"))).refused
    assert refused[0].code == "not_allowed"
    refused = (await lab.ann.execute(DeleteFolder(folder="data"))).refused
    assert str(refused[0].message).startswith("Model data of the store is served from data;")
    assert data.is_dir()
    await lab.ann.execute(Undo(action=installed.audit_id))
    assert not (await lab.ann.execute(DeleteFolder(folder="data"))).refused


async def test_a_folder_whose_days_are_over_leaves_before_its_files_do(lab: Lab, data: Path) -> None:
    await lab.ann.execute(DeleteFolder(folder="data"))
    await lab.later(8 * 86400)
    assert (await lab.ann.folders(trashed=True)).total == 0
    assert [p.name for p in purging(lab)] == ["folder-1"]
    await purged(lab)
    assert purging(lab) == []


async def test_a_purge_whose_commit_did_not_come_to_pass_is_taken_back_at_the_next_start(
    lab: Lab, data: Path, tmp_path: Path
) -> None:
    await lab.ann.execute(DeleteFolder(folder="data"))
    assert lab.core.volumes is not None
    lab.core.volumes.discard("folder-1")
    (lab.core.volumes.purging("file-left")).write_bytes(b"left over")
    again = await Core.open(lab.core.db.where, clock=lab.clock, data_dir=tmp_path, name="lab")
    assert [p.name for p in purging(lab)] == ["file-left"]
    await again.purges.step()
    await again.purges.rest()
    assert purging(lab) == []
    assert (lab.core.volumes.place("red", "data", "folder-1") / "a.bin").exists()
    await again.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="as root there is no directory that may not be written to")
def test_directories_that_may_not_be_written_to_are_removed_too(tmp_path: Path) -> None:
    top = tmp_path / "top"
    (top / "module").mkdir(parents=True)
    (top / "module" / "file").write_bytes(b"x")
    os.chmod(top / "module", 0o555)
    remove(top, Event())
    assert not top.exists()


def test_a_removal_stops_when_it_is_told_to(tmp_path: Path) -> None:
    (tmp_path / "top").mkdir()
    (tmp_path / "top" / "file").write_bytes(b"x")
    stop = Event()
    stop.set()
    remove(tmp_path / "top", stop)
    assert (tmp_path / "top" / "file").exists()
