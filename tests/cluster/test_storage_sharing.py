"""Folders shared with people and projects: who sees, reads, writes, mounts and copies them."""

import pytest

from cluster.db.tables import QuotaRow
from cluster.errors import Ambiguous
from cluster.models import (
    CloneFolder,
    CreateFolder,
    DeleteFolder,
    RestoreFolder,
    SetFolderQuota,
    ShareFolder,
    StartSession,
    Undo,
    UnshareFolder,
)
from cluster.simulator.lab import Lab


async def test_a_folder_is_seen_by_whom_it_is_shared_with_and_its_shares_by_all_who_see_it(lab: Lab) -> None:
    await lab.ann.execute(CreateFolder(name="data"))
    assert (await lab.eve.folders()).total == 0
    outcome = await lab.ann.execute(ShareFolder(folder="data", permission="read", user="eve"))
    assert str(outcome.effects[0].message) == "eve can read data of project red."
    for client, may in ((lab.eve, "read"), (lab.ann, "write"), (lab.bob, "write"), (lab.boss, "write")):
        [folder] = (await client.folders()).items
        assert (folder.permission, [(g.scope, g.name, g.permission) for g in folder.shared]) == (
            may,
            [("user", "eve", "read")],
        )
    assert (await lab.eve.names()).folders == ["data"]


async def test_a_folder_is_shared_with_a_whole_project(lab: Lab) -> None:
    await lab.ann.execute(CreateFolder(name="data"))
    await lab.ann.execute(ShareFolder(folder="data", permission="write", project="blue"))
    assert [f.permission for f in (await lab.eve.folders()).items] == ["write"]


async def test_only_whom_a_folder_belongs_to_shares_it(lab: Lab) -> None:
    await lab.ann.execute(CreateFolder(name="data"))
    share = ShareFolder(folder="data", permission="write", user="eve")
    assert (await lab.bob.execute(share)).refused[0].code == "not_allowed"
    assert (await lab.eve.execute(share)).refused[0].code == "not_found"
    assert not (await lab.boss.execute(share)).refused
    more = ShareFolder(folder="data", permission="read", project="blue")
    assert (await lab.eve.execute(more)).refused[0].code == "not_allowed"
    assert (await lab.eve.execute(DeleteFolder(folder="data"))).refused[0].code == "not_allowed"


@pytest.mark.parametrize(
    ("whom", "code"),
    [
        ({}, "invalid"),
        ({"user": "eve", "project": "blue"}, "invalid"),
        ({"user": "nobody"}, "not_found"),
        ({"project": "nothing"}, "not_found"),
        ({"user": "bob"}, "conflict"),
        ({"project": "red"}, "conflict"),
    ],
)
async def test_a_share_that_says_nothing_is_refused(lab: Lab, whom: dict[str, str], code: str) -> None:
    await lab.ann.execute(CreateFolder(name="data"))
    outcome = await lab.ann.execute(ShareFolder(folder="data", permission="read", **whom))
    assert outcome.refused[0].code == code


async def test_undo_gives_back_exactly_what_was_shared_before(lab: Lab) -> None:
    await lab.ann.execute(CreateFolder(name="data"))

    async def shares() -> list[tuple[str, str]]:
        return [(g.name, g.permission) for g in (await lab.ann.folders()).items[0].shared]

    await lab.ann.execute(ShareFolder(folder="data", permission="read", user="eve"))
    await lab.ann.execute(ShareFolder(folder="data", permission="write", user="eve"))
    await lab.ann.execute(Undo())
    assert await shares() == [("eve", "read")]
    await lab.ann.execute(UnshareFolder(folder="data"))
    assert await shares() == []
    await lab.ann.execute(Undo())
    assert await shares() == [("eve", "read")]
    await lab.ann.execute(UnshareFolder(folder="data", user="eve"))
    assert (await lab.ann.execute(UnshareFolder(folder="data", user="eve"))).refused[0].code == "not_found"


async def test_a_name_that_fits_an_own_and_a_shared_folder_is_a_question(lab: Lab) -> None:
    await lab.node("n1")
    await lab.ann.execute(CreateFolder(name="data"))
    await lab.eve.execute(CreateFolder(name="data"))
    await lab.ann.execute(ShareFolder(folder="data", permission="read", user="eve"))
    assert (await lab.eve.names()).folders == ["blue/data", "red/data"]
    outcome = await lab.eve.execute(StartSession(command="x", mounts=["data"]))
    assert (outcome.refused[0].code, sorted(outcome.refused[0].candidates)) == ("ambiguous", ["blue/data", "red/data"])
    with pytest.raises(Ambiguous):
        await lab.core.folders.row(await lab.core.user("eve"), "data", None)


async def test_what_is_shared_to_read_is_mounted_to_read(lab: Lab) -> None:
    node = await lab.node("n1")
    await lab.ann.execute(CreateFolder(name="data"))
    await lab.eve.execute(CreateFolder(name="data"))
    await lab.ann.execute(ShareFolder(folder="data", permission="read", user="eve"))
    start = StartSession(command="x", name="job", mounts=["red/data", "blue/data"])
    assert any("may only be read" in str(w) for w in (await lab.eve.preview(start)).warnings)
    await lab.eve.execute(start)
    work = (await node.beat()).start[0]
    assert (sorted(work.mounts), work.read_only) == (["blue-data", "red-data"], ["red-data"])
    outcome = await lab.ann.preview(UnshareFolder(folder="data"))
    assert [str(w) for w in outcome.warnings] == ["1 of their sessions mount it, and keep it until they end."]


async def test_a_quota_can_be_set_and_put_back(lab: Lab) -> None:
    await lab.ann.execute(CreateFolder(name="data", quota=100))
    await lab.ann.execute(SetFolderQuota(folder="data", quota=2**40))
    assert (await lab.ann.folders()).items[0].quota == 2**40
    await lab.ann.execute(Undo())
    assert (await lab.ann.folders()).items[0].quota == 100
    assert (await lab.bob.execute(SetFolderQuota(folder="data", quota=5))).refused[0].code == "not_allowed"


async def test_a_project_without_room_gets_no_copies(lab: Lab) -> None:
    await lab.ann.execute(CreateFolder(name="data"))
    (lab.core.data_dir / "volumes" / "red" / "data" / "x").write_bytes(b"12345678")
    async with lab.core.db.write() as db:
        db.add(QuotaRow(scope="project", name="red", storage=10))
    outcome = await lab.ann.execute(CloneFolder(folder="data", name="copy"))
    assert outcome.refused == []  # the source was not counted yet: only the copy is
    again = await lab.ann.execute(CloneFolder(folder="data", name="copy2"))
    assert (again.refused[0].code, again.refused[0].resource) == ("quota", "storage")


async def test_a_folder_comes_back_only_where_there_is_room_for_it(lab: Lab) -> None:
    async with lab.core.db.write() as db:
        db.add(QuotaRow(scope="project", name="red", storage=10))
    for name in ("old", "new"):
        await lab.ann.execute(CreateFolder(name=name))
        (lab.core.data_dir / "volumes" / "red" / name / "x").write_bytes(b"12345678")
        if name == "old":
            await lab.ann.execute(DeleteFolder(folder="old"))
    await lab.later(61)
    await lab.core.measures.rest()
    await lab.core.schedule_pass()
    refused = (await lab.ann.execute(RestoreFolder(folder="old"))).refused
    assert (refused[0].code, refused[0].available) == ("quota", 2)
    await lab.ann.execute(DeleteFolder(folder="new"))
    assert not (await lab.ann.execute(RestoreFolder(folder="old"))).refused
