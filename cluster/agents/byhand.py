"""A node's work without a server: give it, wait for it, look at it. For tests, and to try a fence on a new host."""

import time
from collections.abc import Callable
from pathlib import Path

import psutil

from cluster.agents import processes
from cluster.agents.record import Record
from cluster.agents.runner import Runner
from cluster.models import StopOrder, Work, WorkId, WorkReport

MIB = 1 << 20


def work(command: str | None, session: str = "s1", attempt: int = 1, **more: object) -> Work:
    given: dict[str, object] = {"cpu": 1, "memory": 512 * MIB, **more}
    return Work.model_validate(
        {"id": WorkId(session=session, attempt=attempt), "name": session, "user": "minho", "command": command, **given}
    )


def until(true: Callable[[], object], seconds: float = 15) -> None:
    """Poll until `true()` holds."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)


def report(runner: Runner, session: str = "s1") -> WorkReport | None:
    """The last report on `session`."""
    runner.refresh()
    found = [r for r in runner.reports(with_logs=False) if r.id.session == session]
    return found[-1] if found else None


def state(runner: Runner, session: str = "s1") -> str:
    found = report(runner, session)
    return found.state if found else ""


def family(runner: Runner, key: str = "s1.1.0") -> list[psutil.Process]:
    """All living processes of a piece of work, wherever they went."""
    return processes.marked(str(record(runner, key).path))


def ended(runner: Runner, session: str = "s1") -> WorkReport:
    until(lambda: state(runner, session) in ("exited", "lost"))
    found = report(runner, session)
    assert found is not None
    return found


def record(runner: Runner, key: str = "s1.1.0") -> Record:
    return Record(runner.root / key)


def output(runner: Runner, key: str = "s1.1.0") -> str:
    path = record(runner, key).output
    return path.read_text() if path.exists() else ""


def idle(runner: Runner) -> bool:
    runner.refresh()
    return not runner.running() and all(i.supervisor is None for i in runner._items.values())


def end_all(runner: Runner) -> None:
    """Leave nothing running, and no child unreaped."""
    for item in runner._items.values():
        if item.record.supervisor and processes.alive(item.record.supervisor) and not item.ended:
            runner.stop(StopOrder(id=item.id, grace=0))
    until(lambda: idle(runner))


def files(root: Path, content: dict[str, str]) -> Path:
    """These files with this text below `root`: a made-up part of a machine."""
    for name, text in content.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root
