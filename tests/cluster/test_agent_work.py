"""One piece of work by the runner and its supervisor: real processes, no server."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cluster.agents import choice, processes
from cluster.agents.byhand import MIB, end_all, ended, family, idle, output, record, state, until, work
from cluster.agents.record import Record
from cluster.agents.runner import Runner
from cluster.agents.specify import Ways
from cluster.models import Beat, StopOrder, WorkId

KINDS = sorted({"process", choice.plain(same_host=True), choice.plain()})


@pytest.fixture(params=KINDS)
def runner(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Runner]:
    made = Runner(tmp_path / "work", Ways(request.param, request.param))
    made.adopt()
    yield made
    end_all(made)


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Runner]:
    made = Runner(tmp_path / "work", Ways("process", "process"))
    made.adopt()
    yield made
    end_all(made)


def test_a_command_runs_writes_a_file_and_its_exit_code_is_told(runner: Runner) -> None:
    runner.accept(work("echo hello; echo oops >&2; echo made > result.txt; exit 3"))
    end = ended(runner)
    assert (end.state, end.exit_code, end.detail) == ("exited", 3, None)
    assert output(runner) == "hello\noops\n"
    assert (record(runner).private / "result.txt").read_text() == "made\n"


def test_a_quick_command_is_still_told_to_have_started(plain: Runner) -> None:
    plain.accept(work("true"))
    ended(plain)
    assert [r.state for r in plain.reports(with_logs=False)] == ["running", "exited"]


def test_the_environment_names_the_session_and_hides_other_gpus(plain: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELMSMAN_TOKEN", "secret")
    monkeypatch.setenv("MY_SECRET", "secret")
    plain.accept(work("env", env={"LR": "0.1"}, devices={2: 1.0, 0: 1.0}))
    plain.accept(work("env", session="s2"))
    ended(plain), ended(plain, "s2")
    lines = output(plain).splitlines()
    assert {"HELMSMAN_SESSION=s1", "HELMSMAN_USER=minho", "LR=0.1", "CUDA_VISIBLE_DEVICES=0,2"} <= set(lines)
    assert "CUDA_VISIBLE_DEVICES=" in output(plain, "s2.1.0").splitlines()
    assert "secret" not in output(plain)


def test_where_node_and_person_share_a_machine_it_starts_in_the_persons_directory(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "work", Ways("process", "process", same_host=True))
    runner.adopt()
    runner.accept(work("pwd", workdir=str(tmp_path)))
    ended(runner)
    assert output(runner).strip() == str(tmp_path)
    end_all(runner)


def test_elsewhere_a_given_directory_is_not_used(plain: Runner, tmp_path: Path) -> None:
    plain.accept(work("pwd", workdir=str(tmp_path)))
    ended(plain)
    assert output(plain).strip() == str(record(plain).private)


def test_folders_lie_in_the_working_directory(plain: Runner, tmp_path: Path) -> None:
    folder = tmp_path / "volumes" / "cats"
    folder.mkdir(parents=True)
    plain.accept(work("echo meow > cats/sound; ls $HELMSMAN_FOLDERS", mounts={"cats": str(folder)}))
    ended(plain)
    assert (folder / "sound").read_text() == "meow\n"
    assert output(plain) == "cats\n"


def test_a_directory_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "work", Ways("process", "process", same_host=True))
    runner.adopt()
    runner.accept(work("true", workdir="/no/such/place"))
    end = ended(runner)
    assert end.exit_code == 127
    assert str(end.detail) == "It could not be started: No such file or directory: /no/such/place."
    end_all(runner)


def test_it_uses_no_more_cores_than_it_holds(plain: Runner) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two cores")
    plain.accept(work("nproc; sleep 30"))
    plain.accept(work("nproc; sleep 30", session="s2"))
    until(
        lambda: (
            output(plain) == "1\n" and output(plain, "s2.1.0") == "1\n" if state(plain, "s2") == "running" else False
        )
    )
    first, second = record(plain).spec, record(plain, "s2.1.0").spec
    assert first
    assert second
    assert first.cores != second.cores


def test_a_stopped_command_may_say_goodbye(plain: Runner) -> None:
    plain.accept(work("trap 'echo bye; exit 7' TERM; echo up; while true; do sleep 0.05; done"))
    until(lambda: state(plain) == "running" and "up" in output(plain))
    plain.stop(StopOrder(id=WorkId(session="s1", attempt=1), grace=10))
    end = ended(plain)
    assert (end.exit_code, str(end.detail)) == (7, "It was stopped.")
    assert "bye" in output(plain)


def test_one_that_does_not_listen_is_killed_after_its_grace(plain: Runner) -> None:
    plain.accept(work("trap '' TERM; echo up; while true; do sleep 0.05; done"))
    until(lambda: state(plain) == "running" and "up" in output(plain))
    began = time.monotonic()
    plain.stop(StopOrder(id=WorkId(session="s1", attempt=1), grace=0.5))
    assert ended(plain).exit_code == 128 + signal.SIGKILL
    assert 0.4 < time.monotonic() - began < 5


def test_a_second_order_with_force_cuts_the_grace_short(plain: Runner) -> None:
    plain.accept(work("trap '' TERM; echo up; while true; do sleep 0.05; done"))
    until(lambda: state(plain) == "running" and "up" in output(plain))
    plain.stop(StopOrder(id=WorkId(session="s1", attempt=1), grace=600))
    plain.stop(StopOrder(id=WorkId(session="s1", attempt=1), grace=0))
    assert ended(plain).exit_code == 128 + signal.SIGKILL


def test_a_second_order_with_more_grace_does_not_lengthen_it(plain: Runner) -> None:
    plain.accept(work("trap '' TERM; echo up; while true; do sleep 0.05; done"))
    until(lambda: state(plain) == "running" and "up" in output(plain))
    plain.stop(StopOrder(id=WorkId(session="s1", attempt=1), grace=0.5))
    plain.stop(StopOrder(id=WorkId(session="s1", attempt=1), grace=600))
    assert ended(plain).exit_code == 128 + signal.SIGKILL


def test_a_folder_that_is_not_on_this_machine_is_a_sentence(plain: Runner) -> None:
    plain.accept(work("echo never", mounts={"cats": "/no/such/folder"}))
    end = ended(plain)
    assert end.exit_code == 127
    assert str(end.detail) == "It could not be started: No such file or directory: /no/such/folder."
    assert output(plain) == ""


def test_children_that_left_the_session_die_with_it(runner: Runner) -> None:
    runner.accept(work("setsid sleep 300 & setsid sh -c 'trap \"\" TERM; sleep 301' & echo up; sleep 302"))
    until(lambda: state(runner) == "running" and len(family(runner)) >= 4)
    runner.stop(StopOrder(id=WorkId(session="s1", attempt=1), grace=0.3))
    ended(runner)
    assert family(runner) == []


@pytest.mark.slow
def test_what_a_finished_command_left_behind_is_ended_too(plain: Runner) -> None:
    plain.accept(work("setsid sleep 300 & exit 0"))
    assert ended(plain).exit_code == 0
    assert family(plain) == []


def test_the_time_limit_ends_it_and_says_so(plain: Runner) -> None:
    plain.accept(work("sleep 300", time_limit=0.5))
    end = ended(plain)
    assert end.exit_code == 128 + signal.SIGTERM
    assert "It reached its time limit of" in str(end.detail)


@pytest.mark.slow
def test_using_more_memory_than_it_holds_ends_it_and_says_so(runner: Runner) -> None:
    hungry = f"{sys.executable} -c 'import time; x = bytearray(300_000_000); time.sleep(60)'"
    runner.accept(work(hungry, memory=100 * MIB))
    end = ended(runner)
    assert end.exit_code not in (0, None)
    assert str(end.detail) == "It used more than the 100 MiB of memory that it holds. Start it with more."


def test_staying_within_its_memory_is_fine(runner: Runner) -> None:
    runner.accept(work(f"{sys.executable} -c 'x = bytearray(50_000_000); print(len(x))'", memory=200 * MIB))
    assert ended(runner).exit_code == 0


def test_a_session_without_a_command_is_held_open_until_it_is_stopped(runner: Runner) -> None:
    runner.accept(work(None))
    until(lambda: state(runner) == "running")
    runner.stop(StopOrder(id=WorkId(session="s1", attempt=1), grace=5))
    assert ended(runner).exit_code == 0


def test_an_attempt_is_started_once_however_often_it_is_ordered(plain: Runner) -> None:
    for _ in range(3):
        plain.accept(work("echo once"))
    ended(plain)
    plain.accept(work("echo once"))
    again = Runner(plain.root, plain.ways)
    again.adopt()
    again.accept(work("echo once"))
    ended(again)
    assert output(plain) == "once\n"


def test_a_newer_attempt_waits_until_the_older_one_is_dead(plain: Runner) -> None:
    plain.accept(work("sleep 300"))
    until(lambda: state(plain) == "running")
    older = record(plain).supervisor
    assert older is not None
    os.kill(older.pid, signal.SIGSTOP)
    plain.accept(work("echo alone", attempt=2))
    plain.refresh()
    assert plain._items["s1.2.0"].supervisor is None
    os.kill(older.pid, signal.SIGCONT)
    until(lambda: ((s := record(plain, "s1.2.0").status) is not None and s.final) or plain.refresh())
    first, second = record(plain).status, record(plain, "s1.2.0").status
    assert first
    assert second
    assert first.why == "stopped"
    assert first.at <= (second.begun or "")


def test_output_is_told_by_offset_and_the_end_only_after_it(plain: Runner) -> None:
    plain.accept(work("echo 안녕; exit 4"))
    ended(plain)
    first = Beat(reports=plain.reports(), logs=plain.logs())
    assert [c.offset for c in first.logs] == [0]
    assert all(r.state != "exited" for r in first.reports)
    plain.acknowledge(first)
    second = Beat(reports=plain.reports(), logs=plain.logs())
    assert second.logs == []
    assert second.reports[-1].exit_code == 4
    plain.acknowledge(second)
    assert not plain.news()
    until(lambda: (plain.refresh(), not plain.busy())[1])


def test_an_order_to_stop_what_was_never_here_is_answered(plain: Runner) -> None:
    plain.stop(StopOrder(id=WorkId(session="ghost", attempt=1)))
    assert plain.news()
    beat = Beat(reports=plain.reports())
    assert [(r.id.session, r.state) for r in beat.reports] == [("ghost", "lost")]
    plain.acknowledge(beat)
    assert not plain.news()


def test_an_order_to_stop_what_was_told_long_ago_is_told_again(plain: Runner) -> None:
    plain.accept(work("exit 5"))
    ended(plain)
    plain.acknowledge(Beat(reports=plain.reports()))
    until(lambda: (plain.refresh(), not plain.busy())[1])
    plain.stop(StopOrder(id=WorkId(session="s1", attempt=1)))
    assert plain.reports()[-1].exit_code == 5


# ── restarts ─────────────────────────────────────────────────────────────────────────────────────


def test_a_new_agent_finds_what_runs_and_can_stop_it(plain: Runner) -> None:
    plain.accept(work("echo up; sleep 300"))
    until(lambda: state(plain) == "running")
    before = record(plain).status
    again = Runner(plain.root, plain.ways)
    again.adopt()
    assert [w.session for w in again.running()] == ["s1"]
    assert record(again).status == before
    again.stop(StopOrder(id=WorkId(session="s1", attempt=1), grace=5))
    assert ended(again).exit_code == 128 + signal.SIGTERM


def test_a_new_agent_tells_what_ended_meanwhile(plain: Runner) -> None:
    plain.accept(work("exit 9"))
    until(lambda: (s := record(plain).status) is not None and s.final)
    again = Runner(plain.root, plain.ways)
    again.adopt()
    assert again.reports()[-1].exit_code == 9


def test_work_written_down_but_not_started_is_started_by_the_next_agent(plain: Runner) -> None:
    ordered = work("echo late")
    record(plain).accept(plain._spec(ordered))
    again = Runner(plain.root, plain.ways)
    again.adopt()
    ended(again)
    assert output(again) == "late\n"
    end_all(again)


def test_two_supervisors_of_one_piece_start_it_once(plain: Runner) -> None:
    plain.accept(work("echo once; sleep 1; exit 5"))
    item = plain._items["s1.1.0"]
    rivals = []
    for _ in range(3):
        rivals.append(item.supervisor)
        plain._supervise(item)
    assert ended(plain).exit_code == 5
    for rival in rivals:
        assert rival is not None
        assert rival.wait(10) == 0
    assert output(plain) == "once\n"


def test_a_supervisor_that_comes_after_the_end_changes_nothing(plain: Runner) -> None:
    plain.accept(work("echo once; exit 3"))
    ended(plain)
    until(lambda: idle(plain))
    before = record(plain).status
    subprocess.run([sys.executable, "-m", "cluster.agents.supervisor", str(record(plain).path)], check=True, timeout=20)
    assert record(plain).status == before


def test_a_killed_supervisor_leaves_nothing_running_and_its_work_is_lost_not_repeated(runner: Runner) -> None:
    runner.accept(work("echo up; setsid sleep 300 & sleep 301"))
    until(lambda: state(runner) == "running" and len(family(runner)) >= 3)
    process = record(runner).supervisor
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    end = ended(runner)
    assert (end.state, end.exit_code) == ("lost", None)
    assert "supervisor was killed" in str(end.detail)
    assert family(runner) == []
    spec = record(runner).spec
    assert spec
    assert list(Path("/sys/fs/cgroup").glob(f"**/helmsman-{spec.unique}")) == []
    runner.accept(work("echo up; setsid sleep 300 & sleep 301"))
    assert output(runner) == "up\n"


def test_a_supervisor_killed_before_it_started_anything_is_replaced(plain: Runner) -> None:
    plain.accept(work("echo once"))
    supervisor = plain._items["s1.1.0"].supervisor
    assert supervisor is not None
    supervisor.kill()
    assert ended(plain).exit_code == 0
    assert output(plain) == "once\n"


def test_a_number_that_another_process_got_is_not_taken_for_the_old_one() -> None:
    mine = processes.identify(os.getpid())
    assert processes.alive(mine)
    assert not processes.alive(type(mine)(mine.pid, mine.started + "0"))


def test_old_directories_go_only_when_the_server_knows_all(plain: Runner) -> None:
    for session in ("s1", "s2"):
        plain.accept(work("true", session=session))
        ended(plain, session)
    plain.acknowledge(Beat(reports=[r for r in plain.reports() if r.id.session == "s1"]))
    until(lambda: (plain.refresh(), "s1.1.0" not in plain._items)[1])
    plain.clean(older=-1)
    assert sorted(p.name for p in plain.root.iterdir()) == ["s2.1.0"]


def test_a_full_disk_is_told_instead_of_kept_quiet(plain: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> bool:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Record, "accept", full)
    plain.accept(work("true"))
    told = plain.reports()
    assert [(r.state, r.exit_code, str(r.detail)) for r in told] == [
        ("exited", 127, "It could not be started: No space left on device.")
    ]


def test_the_supervisor_is_small(plain: Runner) -> None:
    plain.accept(work("sleep 300"))
    until(lambda: state(plain) == "running")
    process = record(plain).supervisor
    assert process is not None
    assert psutil.Process(process.pid).memory_info().rss < 40 * MIB
