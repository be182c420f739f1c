"""A person's whole story, at the real terminal: real server, real agent, real model, real processes.

The program is started on a pseudo-terminal in an empty home, in a folder that holds one script, and spoken to.
"""

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pexpect
import psutil
import pytest

pytestmark = pytest.mark.slow

HELMSMAN = str(Path(sys.executable).with_name("helmsman"))
JOB = """\
import pathlib, time
pathlib.Path("note.txt").write_text("written by the session\\n")
print("ready", flush=True)
time.sleep(3600)
"""
ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[=>]|\x1b\][^\x07]*\x07|[\r\x08]")


class Chat:
    """`helmsman` on a terminal, in its own home."""

    def __init__(self, home: Path, language: str) -> None:
        self.home = home
        (home / "project").mkdir(parents=True, exist_ok=True)
        (home / "project" / "counter.py").write_text(JOB)
        self.env = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(home),
            "LANG": language,
            "TERM": "xterm",
            "NO_COLOR": "1",
            "PROMPT_TOOLKIT_NO_CPR": "1",
            **{f"XDG_{kind}_HOME": str(home / kind.lower()) for kind in ("DATA", "STATE", "CONFIG", "CACHE")},
        }
        self.open()

    def open(self) -> None:
        self.child = pexpect.spawn(
            HELMSMAN, env=self.env, cwd=str(self.home / "project"), encoding="utf-8", dimensions=(50, 110), timeout=90
        )
        self.sees("❯|›|>")

    def says(self, line: str, expect: str) -> str:
        """Type a line; everything on the screen after it until `expect` (a regular expression) came."""
        self.child.send(line + "\r")
        self.sees(re.escape(line))
        return self.sees(expect)

    def plans(self, line: str, expect: str) -> None:
        """Type a request that needs a yes; a card comes that says so and has `expect` in it."""
        card = self.says(line, r"╭[^╯]+╯").split("╭", 1)[1]
        assert re.search(expect, card, re.DOTALL), card

    def agrees(self, yes: str) -> None:
        self.child.send(yes + "\r")
        self.sees("→ ")

    def until(self, true: Callable[[], object], seconds: float = 30) -> None:
        """Wait for something outside the screen, while what is on it is read on."""
        deadline = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < deadline, f"it never came; there was:\n{plain(str(self.child.buffer))}"
            self.child.expect([pexpect.TIMEOUT, r"$^"], timeout=0.1)

    def jobs(self) -> list[psutil.Process]:
        """The processes that run the script."""
        here = str(self.home / "project")
        return [
            p
            for p in psutil.process_iter(["cmdline", "cwd"])
            if p.info["cwd"] == here and "counter.py" in (p.info["cmdline"] or [])
        ]

    def has_printed(self, text: str) -> bool:
        """The server has it of some session."""
        logs = (self.home / "data/helmsman/cluster/logs").rglob("*.log")
        return any(text in log.read_text(errors="replace") for log in logs)

    def job_process(self) -> psutil.Process:
        (one,) = (p for p in self.jobs() if Path(p.cmdline()[0]).name.startswith("python"))
        return one

    def waits_for_job(self) -> psutil.Process:
        self.until(self.jobs)
        return self.job_process()

    def sees(self, expect: str) -> str:
        try:
            self.child.expect(expect)
        except pexpect.ExceptionPexpect:
            raise AssertionError(f"{expect!r} never came; there was:\n{plain(str(self.child.before))}") from None
        return plain(str(self.child.before) + str(self.child.after))

    def leave(self) -> None:
        self.child.send("/quit\r")
        self.child.expect(pexpect.EOF)

    def process(self, name: str) -> psutil.Process:
        file = {"server": "cluster/server.json", "agent": "node/agent.json"}[name]
        return psutil.Process(int(json.loads((self.home / "data" / "helmsman" / file).read_text())["pid"]))

    def clean_up(self) -> None:
        """End everything that runs in this home."""
        self.child.close(force=True)
        for process in psutil.process_iter():
            try:
                if process.environ().get("HOME") == str(self.home):
                    process.send_signal(signal.SIGKILL)
            except psutil.Error:
                continue


def plain(text: str) -> str:
    return ESCAPES.sub("", text)


@dataclass(frozen=True)
class Telling:
    """One telling of the story: what is typed, and a regular expression of what is to be seen then."""

    locale: str
    yes: str
    start: tuple[str, str]
    log: tuple[str, str]
    too_much: tuple[str, str]
    why: tuple[str, str]
    make: tuple[str, str]
    delete: tuple[str, str]
    undo: tuple[str, str]
    list: tuple[str, str]
    stop: tuple[str, str]


ENGLISH = Telling(
    locale="en_US.UTF-8",
    yes="yes",
    start=("run `python counter.py` with 1 core", r"counter starts now on"),
    log=("show me the log of counter", r"ready"),
    too_much=("run `python counter.py` with {cores} cores", r"counter-2.*cores? asked, at most"),
    why=("why is counter-2 pending?", r"cores? asked, at most"),
    make=("create a folder called results", r"Folder results is made"),
    delete=("delete the folder results", r"goes to the trash"),
    undo=("undo that", r"is back in project"),
    list=("list all sessions", r"counter-2"),
    stop=("stop the session counter", r"what it has not saved is lost"),
)
KOREAN = Telling(
    locale="ko_KR.UTF-8",
    yes="네",
    start=("코어 1개로 `python counter.py` 실행해줘", r"counter.*시작"),
    log=("counter 로그 보여줘", r"ready"),
    too_much=("코어 {cores}개로 `python counter.py` 실행해줘", r"코어"),
    why=("counter-2 왜 대기 중이야?", r"코어"),
    make=("results 폴더 만들어줘", r"results"),
    delete=("results 폴더 삭제해줘", r"휴지통"),
    undo=("방금 거 되돌려줘", r"results"),
    list=("세션 목록 보여줘", r"counter-2"),
    stop=("counter 세션 종료해줘", r"저장"),
)


@pytest.fixture(params=[ENGLISH, KOREAN], ids=["English", "Korean"])
def telling(request: pytest.FixtureRequest) -> Telling:
    told: Telling = request.param
    return told


@pytest.fixture
def chat(tmp_path: Path, telling: Telling) -> Iterator[Chat]:
    chat = Chat(tmp_path / "home", telling.locale)
    yield chat
    chat.clean_up()


def test_the_whole_story(chat: Chat, telling: Telling) -> None:
    """Start, watch, ask why another waits, undo a delete, lose server and agent, stop after a plan card, start anew."""
    note = chat.home / "project" / "note.txt"
    chat.plans(*telling.start)
    assert not note.exists(), "nothing runs before the yes"
    chat.agrees(telling.yes)
    chat.until(note.exists)
    assert note.read_text() == "written by the session\n"
    chat.until(lambda: chat.has_printed("ready"))  # it prints after it has written, and its agent sends now and then
    chat.says(*telling.log)

    line, waits = telling.too_much
    chat.plans(line.format(cores=psutil.cpu_count()), waits)
    chat.agrees(telling.yes)
    chat.says(*telling.why)

    folder = chat.home / "data/helmsman/cluster/volumes/default/results"
    chat.plans(*telling.make)
    chat.agrees(telling.yes)
    chat.until(folder.is_dir)
    (folder / "result.txt").write_text("42")
    chat.plans(*telling.delete)
    chat.agrees(telling.yes)
    chat.until(lambda: not folder.exists())
    chat.plans(*telling.undo)
    chat.agrees(telling.yes)
    chat.until(folder.is_dir)
    assert (folder / "result.txt").read_text() == "42"

    job = chat.job_process()
    for name in ("server", "agent"):
        chat.process(name).kill()
    chat.says(*telling.list)
    assert job.is_running(), "what ran goes on without server and agent"
    assert chat.job_process() == job, "and it is not started a second time"

    chat.plans(*telling.stop)
    assert job.is_running(), "nothing stops before the yes"
    chat.agrees(telling.yes)
    chat.until(lambda: not job.is_running())
    second = chat.waits_for_job()
    assert second.pid != job.pid, "the one that waited has its place now"

    chat.leave()
    chat.open()
    chat.says(*telling.list)
