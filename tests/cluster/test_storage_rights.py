"""A session's right to its folders is weighed again before it starts; uploads are in the journal."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from cluster.core import Core
from cluster.journal.reads import AuditQuery
from cluster.models import (
    Beat,
    CreateFolder,
    ShareFolder,
    StartSession,
    Undo,
    UnshareFolder,
    UploadFile,
)
from cluster.simulator.lab import HandAgent, Lab
from cluster.storage import incoming
from cluster.storage.uploads import Upload

START = StartSession(command="x", name="job", mounts=["red/data"], cpu=8)


@pytest.fixture
async def node(lab: Lab) -> HandAgent:
    """A node that is taken by a session of ann's; her folder is shared with eve, to write."""
    node = await lab.node("n1", cpu=8)
    await lab.ann.execute(CreateFolder(name="data"))
    await lab.ann.execute(ShareFolder(folder="data", permission="write", user="eve"))
    await lab.ann.execute(StartSession(command="x", name="first", cpu=8))
    await node.obey()
    return node


async def test_who_lost_the_share_while_waiting_does_not_start(lab: Lab, node: HandAgent) -> None:
    assert not (await lab.eve.execute(START)).refused
    outcome = await lab.ann.execute(UnshareFolder(folder="data"))
    assert "wait to start with it" in str(outcome.warnings[0])
    await lab.core.schedule_pass()
    job = await lab.eve.session("job")
    assert job.state == "cancelled"
    assert str(job.reasons[0].message) == "job does not start: eve can't use folder red/data any more."
    await node.exit(node.running[0], 0)
    await lab.core.schedule_pass()
    assert (await node.beat()).start == []


async def test_who_may_only_read_by_now_gets_it_to_read(lab: Lab, node: HandAgent) -> None:
    await lab.eve.execute(START)
    await lab.ann.execute(ShareFolder(folder="data", permission="read", user="eve"))
    await node.exit(node.running[0], 0)
    await lab.core.schedule_pass()
    [work] = (await node.beat()).start
    assert (list(work.mounts), work.read_only) == (["data"], ["data"])


async def test_one_that_has_its_place_and_was_told_to_nobody_fails_too(lab: Lab) -> None:
    node = await lab.node("n1", cpu=8)
    await lab.ann.execute(CreateFolder(name="data"))
    await lab.ann.execute(ShareFolder(folder="data", permission="write", user="eve"))
    await lab.eve.execute(START)
    assert (await lab.eve.session("job")).state == "scheduled"
    await lab.ann.execute(UnshareFolder(folder="data"))
    assert (await node.beat()).start == []
    job = await lab.eve.session("job")
    assert (job.state, job.reasons[0].code) == ("error", "not_allowed")


async def test_an_agent_that_waits_is_not_told_to_start_it_by_the_commit_that_takes_the_right(
    lab: Lab, node: HandAgent
) -> None:
    await lab.eve.execute(START)
    await node.exit(node.running[0], 0)  # there is room now, and the next pass is that of the operation below
    poll = asyncio.create_task(lab.core.agents.beat("n1", Beat(running=[], wait=30)))
    await wait_until(lambda: lab.core.agents.polling == 1)
    await lab.ann.execute(UnshareFolder(folder="data"))
    await lab.core.schedule_pass()
    assert (await lab.eve.session("job")).state == "error"
    await node.beat()  # its next beat ends the poll
    assert (await poll).start == []


async def wait_until(so: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not so():
            await asyncio.sleep(0)


async def test_one_that_was_handed_out_keeps_its_folder(lab: Lab) -> None:
    node = await lab.node("n1", cpu=8)
    await lab.ann.execute(CreateFolder(name="data"))
    await lab.ann.execute(ShareFolder(folder="data", permission="write", user="eve"))
    await lab.eve.execute(START)
    await node.obey()
    await lab.ann.execute(UnshareFolder(folder="data"))
    await lab.core.schedule_pass()
    assert (await lab.eve.session("job")).state == "running"


async def test_a_share_given_back_in_time_changes_nothing(lab: Lab, node: HandAgent) -> None:
    await lab.eve.execute(START)
    await lab.ann.execute(ShareFolder(folder="data", permission="read", project="blue"))
    await lab.ann.execute(UnshareFolder(folder="data", user="eve"))
    await lab.core.schedule_pass()
    assert (await lab.eve.session("job")).state == "pending"
    await lab.ann.execute(Undo())
    await node.exit(node.running[0], 0)
    await lab.core.schedule_pass()
    [work] = (await node.beat()).start
    assert work.read_only == []


# ── uploads in the journal ───────────────────────────────────────────────────────────────────────


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def uploaded(lab: Lab, path: str = "a/x.bin", folder: str = "data") -> Upload:
    ann = await lab.core.user("ann")
    made = await lab.core.uploads.create(ann, folder, path, 4)
    return await lab.core.uploads.receive(ann, made.id, 0, pieces(b"1234"))


async def test_a_finished_upload_is_in_the_journal_and_nothing_to_undo(lab: Lab) -> None:
    await lab.ann.execute(CreateFolder(name="data"))
    assert (await uploaded(lab)).finished
    entry = (await lab.ann.audit()).items[0]
    assert (entry.user, entry.action, entry.result, entry.targets) == ("ann", "upload_file", "done", ["data/a/x.bin"])
    assert entry.operation == UploadFile(folder="red/data", path="a/x.bin", size=4)
    assert (await lab.ann.execute(Undo())).refused[0].code == "conflict"
    assert (await lab.boss.verify_audit()).whole


async def test_a_refused_upload_is_in_the_journal(lab: Lab) -> None:
    with pytest.raises(Exception, match="There is no folder nowhere"):
        await uploaded(lab, folder="nowhere")
    entry = (await lab.ann.audit()).items[0]
    assert (entry.action, entry.result, entry.reasons[0].code) == ("upload_file", "refused", "not_found")
    assert entry.operation == UploadFile(folder="nowhere", path="a/x.bin", size=4)


async def test_an_upload_that_landed_right_before_a_crash_is_in_the_journal_after_it(lab: Lab, tmp_path: Path) -> None:
    await lab.ann.execute(CreateFolder(name="data"))
    made = await lab.core.uploads.create(await lab.core.user("ann"), "data", "x.bin", 4)
    root = lab.core.data_dir / "volumes"
    incoming.place(root, made.id).write_bytes(b"1234")
    incoming.land(root, made.id, root / "red" / "data", ["x.bin"])
    again = await Core.open(lab.core.db.where, clock=lab.clock, data_dir=tmp_path, name="lab")
    entry = (await again.journal.audit(await again.user("ann"), AuditQuery())).items[0]
    assert (entry.action, entry.result, entry.targets) == ("upload_file", "done", ["data/x.bin"])
    await again.close()
