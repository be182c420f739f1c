"""What folders hold is counted now and then, and quotas are weighed against it."""

from datetime import UTC, datetime, timedelta

import httpx
import pytest

from cluster.api.app import create_app
from cluster.db.tables import FolderRow
from cluster.models import CreateFolder
from cluster.simulator.lab import Lab
from cluster.storage import incoming, measures

NOW = datetime(2026, 3, 2, tzinfo=UTC)


async def count(lab: Lab) -> None:
    await lab.later(61)
    await lab.core.measures.rest()
    await lab.core.schedule_pass()


async def test_what_sessions_write_is_counted_without_a_walk_at_every_list(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    await lab.ann.execute(CreateFolder(name="data"))
    volumes = lab.core.volumes
    assert volumes is not None
    (volumes.path("red", "data") / "x").write_bytes(b"12345")
    await count(lab)
    monkeypatch.setattr(volumes, "size", lambda *_: pytest.fail("a list walked the folder"))
    assert [f.size for f in (await lab.ann.folders()).items] == [5]


async def test_a_folder_above_its_quota_is_told_of_once_and_takes_no_uploads(lab: Lab) -> None:
    await lab.ann.execute(CreateFolder(name="data", quota=10))
    volumes = lab.core.volumes
    assert volumes is not None
    (volumes.path("red", "data") / "x").write_bytes(b"x" * 11)
    for _ in range(3):
        await count(lab)
    told = [e for e in (await lab.ann.events()).items if e.kind == "folder_over_quota"]
    assert [e.severity for e in told] == ["warning"]
    headers = {"Authorization": f"Bearer {await lab.core.token_for('ann')}", "Tus-Resumable": "1.0.0"}
    more = {"Upload-Length": "1", "Upload-Metadata": "folder ZGF0YQ==,path eA=="}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(create_app(lab.core)), base_url="http://lab") as http:
        assert (await http.post("/v1/uploads", headers={**headers, **more})).status_code == 507
        (volumes.path("red", "data") / "x").write_bytes(b"x")
        await count(lab)
        assert (await http.post("/v1/uploads", headers={**headers, **more})).status_code == 201


async def test_a_count_that_an_upload_overtook_is_not_written(lab: Lab) -> None:
    await lab.ann.execute(CreateFolder(name="data"))
    await lab.later(61)
    await lab.core.measures.rest()  # it has counted nothing, and did not say so yet
    user = await lab.core.user("ann")
    made = await lab.core.uploads.create(user, "data", "x", 4)
    incoming.place(lab.core.data_dir / "volumes", made.id).write_bytes(b"1234")
    lab.clock.advance(timedelta(seconds=1))
    await lab.core.uploads.receive(user, made.id, 4, nothing())
    await lab.core.schedule_pass()
    assert [f.size for f in (await lab.ann.folders()).items] == [4]


async def nothing():  # type: ignore[no-untyped-def]
    for chunk in ():
        yield chunk


def test_a_folder_that_takes_long_to_count_is_counted_seldom() -> None:
    rows = [FolderRow(id=1), FolderRow(id=2), FolderRow(id=3)]
    last = {1: (NOW, timedelta(0)), 2: (NOW, timedelta(minutes=1))}

    def counted_after(minutes: float) -> list[int]:
        return [row.id for row in measures.due(rows, last, NOW + timedelta(minutes=minutes))]

    assert counted_after(0.5) == [3]
    assert counted_after(1) == [1, 3]
    assert counted_after(49) == [1, 3]
    assert counted_after(50) == [1, 2, 3]
