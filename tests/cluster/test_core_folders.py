"""Folders through the core: rows and directories in step, whatever happens in between."""

from pathlib import Path

from cluster.core import Core
from cluster.models import CreateFolder, DeleteFolder, RestoreFolder, StartSession, Undo
from cluster.simulator.lab import Lab


async def test_a_folder_is_a_directory_goes_to_the_trash_and_comes_back_with_its_files(lab: Lab) -> None:
    await lab.ann.execute(CreateFolder(name="data", quota=2**30))
    directory = lab.core.data_dir / "volumes" / "red" / "data"
    (directory / "x.txt").write_text("hello")
    preview = await lab.ann.preview(DeleteFolder(folder="data"))
    assert str(preview.effects[0].message) == "data (5 B) goes to the trash and is kept there for 7 days."
    assert directory.is_dir()
    await lab.ann.execute(DeleteFolder(folder="data"))
    assert not directory.exists()
    assert (await lab.ann.names()).trashed_folders == ["data"]
    await lab.ann.execute(Undo())
    assert (directory / "x.txt").read_text() == "hello"
    assert [f.size for f in (await lab.ann.folders()).items] == [5]


async def test_a_folder_comes_back_by_its_name(lab: Lab) -> None:
    await lab.ann.execute(CreateFolder(name="데이터"))
    await lab.ann.execute(DeleteFolder(folder="데이터"))
    done = await lab.ann.execute(RestoreFolder(folder="데이터"))
    assert not done.refused
    assert (lab.core.data_dir / "volumes" / "red" / "데이터").is_dir()


async def test_a_name_that_is_taken_meanwhile_is_not_overwritten(lab: Lab) -> None:
    await lab.ann.execute(CreateFolder(name="data"))
    await lab.ann.execute(DeleteFolder(folder="data"))
    await lab.ann.execute(CreateFolder(name="data"))
    outcome = await lab.ann.execute(RestoreFolder(folder="data"))
    assert outcome.refused[0].code == "conflict"
    assert (await lab.ann.names()).trashed_folders == ["data"]


async def test_a_mounted_folder_is_not_deleted(lab: Lab) -> None:
    await lab.node("n1")
    await lab.ann.execute(CreateFolder(name="data"))
    await lab.ann.execute(StartSession(command="job", mounts=["data"]))
    outcome = await lab.ann.execute(DeleteFolder(folder="data"))
    assert str(outcome.refused[0].message) == "data is mounted by job; stop them first."


async def test_others_see_and_delete_only_what_they_may(lab: Lab) -> None:
    await lab.ann.execute(CreateFolder(name="data"))
    assert (await lab.eve.folders()).total == 0
    assert (await lab.eve.execute(DeleteFolder(folder="data"))).refused[0].code == "not_found"
    assert (await lab.bob.execute(DeleteFolder(folder="data"))).refused[0].code == "not_allowed"


async def test_a_name_that_leads_elsewhere_is_refused(lab: Lab) -> None:
    for name in ("../out", "a/b", ".trash", ".."):
        outcome = await lab.ann.execute(CreateFolder(name=name))
        assert outcome.refused, name
    assert not (lab.core.data_dir / "out").exists()


async def test_the_trash_is_emptied_after_seven_days(lab: Lab) -> None:
    await lab.ann.execute(CreateFolder(name="data"))
    await lab.ann.execute(DeleteFolder(folder="data"))
    await lab.later(8 * 86400)
    assert (await lab.ann.names()).trashed_folders == []
    assert (await lab.ann.execute(RestoreFolder(folder="data"))).refused[0].code == "not_found"


async def test_a_crash_between_directory_and_commit_is_mended_at_the_next_start(lab: Lab, tmp_path: Path) -> None:
    await lab.ann.execute(CreateFolder(name="kept"))
    await lab.ann.execute(CreateFolder(name="gone"))
    await lab.ann.execute(DeleteFolder(folder="gone"))
    volumes = lab.core.volumes
    assert volumes is not None
    volumes.trash("red", "kept", "folder-1")  # as if the server died before the commit of a delete
    volumes.restore("folder-2", "red", "gone")  # … and of a restore
    again = await Core.open(lab.core.db.where, clock=lab.clock, data_dir=tmp_path, name="lab")
    assert volumes.exists("red", "kept")
    assert not volumes.exists("red", "gone")
    await again.close()
