"""The fences: what is visible, writable and reachable inside of each. Real ones where this host has them."""

import functools
import io
import os
import re
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import NamedTemporaryFile

import pytest

from cluster.agents import bubblewrap, choice, containers, processes
from cluster.agents.byhand import MIB, end_all, ended, idle, output, record, state, until, work
from cluster.agents.record import Record, Spec
from cluster.agents.runner import Runner
from cluster.agents.specify import Ways, specify
from cluster.errors import Invalid
from cluster.models import Device, StopOrder, Work, WorkId, WorkReport

IMAGE = "localhost/helmsman-test:1"
GPUS = [Device(index=i, model="A100", ident=str(i), files=[f"/dev/nvidia{i}", "/dev/nvidiactl"]) for i in range(4)]


@functools.cache
def missing(kind: str) -> str:
    """Why this host cannot do it; empty when it can."""
    return bubblewrap.why_not() if kind == "bubblewrap" else containers.why_not(kind)


def need(kind: str) -> None:
    if why := missing(kind):
        pytest.skip(f"{kind} does not work on this host: {why}")


def spec_of(ordered: Work, kind: str, devices: list[Device] | None = None) -> Spec:
    return specify(ordered, Record(Path("/data/node/work/s1.1.0")), Ways(kind, kind, devices=devices or []), [])


def pairs(line: list[str], flag: str) -> list[str]:
    """What follows each `flag`."""
    return [line[i + 1] for i, word in enumerate(line) if word == flag]


# ── the command lines, on any host ───────────────────────────────────────────────────────────────


def test_bubblewrap_shows_the_system_and_lets_write_only_what_belongs_to_the_session() -> None:
    spec = spec_of(work("train", mounts={"cats": "/vol/cats"}, devices={2: 1.0}), "bubblewrap", GPUS)
    line = bubblewrap.command_line("/usr/bin/bwrap", spec, ["sh", "-c", "train"], {"LD_PRELOAD": "x.so"})
    assert line[line.index("--ro-bind") :][:3] == ["--ro-bind", "/", "/"]
    assert pairs(line, "--bind") == ["/data/node/work/s1.1.0/files", "/vol/cats"]
    assert {"/tmp", "/run", "/data/node"} <= set(pairs(line, "--tmpfs"))
    assert pairs(line, "--dev-bind-try") == ["/dev/nvidia2", "/dev/nvidiactl"]
    assert pairs(line, "--dev") == ["/dev"]
    assert line[line.index("--setenv") :][:3] == ["--setenv", "LD_PRELOAD", "x.so"]
    assert line[-4:] == ["--", "sh", "-c", "train"]
    assert line.index("/data/node") < line.index("/data/node/work/s1.1.0/files"), "hidden after it was shown"


def test_whoever_holds_a_device_of_unknown_files_sees_all_devices() -> None:
    spec = spec_of(work("train", devices={0: 1.0}), "bubblewrap", [Device(index=0, model="new", kind="new")])
    assert pairs(bubblewrap.command_line("bwrap", spec, ["train"], {}), "--dev-bind") == ["/dev"]


@pytest.mark.parametrize("engine", ["podman", "docker"])
def test_a_container_has_its_limits_its_places_and_its_name(engine: str) -> None:
    ordered = work("train", image="pytorch:2.8", mounts={"cats": "/vol/a,b"}, cpu=1.5, memory=2048 * MIB)
    spec = spec_of(ordered, engine)
    line = containers.command_line(engine, spec, Path("/data/env"), {"LONG": "a\nb"}, cdi=False)
    assert line[:3] == [engine, "run", "--init"]
    assert pairs(line, "--cpus") == ["1.5"]
    assert pairs(line, "--memory") == pairs(line, "--memory-swap") == pairs(line, "--shm-size") == ["2147483648b"]
    assert pairs(line, "--name") == [f"helmsman-{spec.unique}"]
    assert pairs(line, "--label") == ["helmsman.node=/data/node/work", f"helmsman.work={spec.unique}"]
    assert pairs(line, "--mount") == [
        "type=bind,source=/data/node/work/s1.1.0/files,target=/work",
        'type=bind,"source=/vol/a,b",target=/folders/cats',
    ]
    assert (pairs(line, "--env-file"), pairs(line, "--env")) == (["/data/env"], ["LONG=a\nb"])
    assert "--network" not in line
    assert "--privileged" not in line
    assert line[-6:] == ["--entrypoint", "", "pytorch:2.8", "/bin/sh", "-c", "train"]


@pytest.mark.parametrize(
    ("engine", "cdi", "flag", "given"),
    [
        ("docker", False, "--gpus", ['"device=1,3"']),
        ("podman", True, "--device", ["nvidia.com/gpu=1", "nvidia.com/gpu=3"]),
    ],
)
def test_nvidia_gpus_come_as_the_engine_has_them(engine: str, cdi: bool, flag: str, given: list[str]) -> None:
    spec = spec_of(work("train", image="x", devices={1: 1.0, 3: 1.0}), engine, GPUS)
    assert pairs(containers.command_line(engine, spec, Path("/e"), {}, cdi=cdi), flag) == given
    assert spec.env["CUDA_VISIBLE_DEVICES"] == "0,1", "inside, the driver counts what it sees"


def test_other_accelerators_come_by_their_device_files() -> None:
    card = Device(index=0, model="MI300X", kind="rocm", ident="0", files=["/dev/null", "/dev/zero", "/dev/not-there"])
    spec = spec_of(work("train", image="x", devices={0: 1.0}), "podman", [card])
    line = containers.command_line("podman", spec, Path("/e"), {}, cdi=True)
    assert pairs(line, "--device") == ["/dev/null", "/dev/zero"]


def test_ranks_on_several_nodes_share_the_machines_network_and_know_their_peers() -> None:
    ordered = work("train", image="x", hosts=["10.0.0.5", "10.0.0.6"], port=23456)
    spec = spec_of(ordered.model_copy(update={"id": WorkId(session="s1", attempt=1, rank=1)}), "podman")
    assert pairs(containers.command_line("podman", spec, Path("/e"), {}, cdi=False), "--network") == ["host"]
    told = {"MASTER_ADDR": "10.0.0.5", "MASTER_PORT": "23456", "NNODES": "2", "NODE_RANK": "1", "RANK": "1"}
    assert {k: spec.env[k] for k in told} == told
    assert (spec.env["WORLD_SIZE"], spec.env["HELMSMAN_HOSTS"]) == ("2", "10.0.0.5,10.0.0.6")


def test_a_session_on_one_node_has_no_peers_to_meet() -> None:
    assert "MASTER_ADDR" not in spec_of(work("train", hosts=["10.0.0.5"], port=23456), "process").env


def test_the_agents_environment_does_not_get_into_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hush")
    env = spec_of(work("train", image="x", env={"LR": "1"}), "podman").env
    assert env["LR"] == "1"
    assert not {"SECRET", "PATH", "HOME"} & env.keys()


# ── which one ────────────────────────────────────────────────────────────────────────────────────


def test_a_mistyped_isolation_is_one_sentence_with_the_names() -> None:
    with pytest.raises(Invalid, match=r"no isolation bublewrap; it is one of podman, docker, bubblewrap\+cgroup2"):
        choice.choose("bublewrap")


def test_one_that_does_not_work_here_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Invalid, match=r"^Isolation podman does not work here: podman is not installed\.$"):
        choice.choose("podman")
    with pytest.raises(Invalid, match="bwrap is not installed"):
        choice.choose("bubblewrap")


def test_a_program_that_is_there_but_fails_is_not_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("podman", "docker", "bwrap"):
        script(tmp_path / name, "echo 'Error: no permission here.' >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert choice.choose().kind == choice.choose(same_host=True).kind
    assert choice.choose().kind in ("cgroup2", "cgroup1", "process")
    with pytest.raises(Invalid, match="Isolation docker does not work here: no permission here"):
        choice.choose("docker")


def test_an_engine_whose_containers_run_on_another_machine_is_not_ours(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script(tmp_path / "docker", 'test "$1" != run || echo 5f7c1c6e-another-boot')
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert containers.why_not("docker") == "its containers run on another machine"
    script(tmp_path / "docker", f'test "$1" != run || cat {containers._BOOT}')
    assert containers.why_not("docker") == ""


def test_an_engine_that_hangs_is_tried_once_and_not_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script(tmp_path / "docker", f'echo "$1" >> {tmp_path}/calls; exec sleep 300')
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(containers, "_TRY", 0.2)
    assert containers.why_not("docker") == "it does not answer within 0.2 s"
    assert (tmp_path / "calls").read_text() == "image\n"


def test_where_person_and_node_share_a_machine_nothing_is_hidden_from_the_person() -> None:
    assert "bubblewrap" not in choice.plain(same_host=True)


def test_what_has_no_image_runs_on_the_machine_also_where_there_are_containers() -> None:
    ways = Ways("podman", "cgroup1")
    assert (ways.kind(work("x")), ways.kind(work("x", image="y"))) == ("cgroup1", "podman")
    assert Ways("cgroup1", "cgroup1").kind(work("x", image="y")) == "cgroup1"


# ── bubblewrap, really ───────────────────────────────────────────────────────────────────────────


@pytest.fixture
def fenced(tmp_path: Path) -> Iterator[Runner]:
    need("bubblewrap")
    kind = choice.choose("bubblewrap").kind
    yield from running(tmp_path, Ways(kind, kind))


def running(tmp_path: Path, ways: Ways) -> Iterator[Runner]:
    made = Runner(tmp_path / "node" / "work", ways)
    made.adopt()
    yield made
    end_all(made)


def said(runner: Runner, ordered: Work) -> str:
    runner.accept(ordered)
    end = ended(runner)
    return f"{output(runner)}[{end.exit_code}]"


def test_in_bubblewrap_only_its_own_places_can_be_written(fenced: Runner, tmp_path: Path) -> None:
    folder = tmp_path / "volumes" / "cats"
    folder.mkdir(parents=True)
    tries = "for d in /usr /etc /var/lib; do touch $d/helmsman-try 2>/dev/null && echo wrote $d; done;"
    with NamedTemporaryFile(dir="/tmp") as others:
        told = said(
            fenced,
            work(
                f"{tries} echo hi > cats/a && echo x > b && touch /tmp/c && ls /tmp/c && ls {others.name}",
                mounts={"cats": str(folder)},
            ),
        )
    assert told.startswith("/tmp/c\nls: ")
    assert told.endswith("[2]"), "what others have in /tmp is not there"
    assert (folder / "a").read_text() == "hi\n"
    assert (record(fenced).private / "b").read_text() == "x\n"
    assert not Path("/tmp/c").exists()


def test_in_bubblewrap_the_agents_token_and_other_peoples_work_are_not_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("bubblewrap")
    monkeypatch.setattr(bubblewrap, "_EMPTY", ())  # tmp_path lies in /tmp, which would hide it anyway
    mine, other = Record(tmp_path / "work" / "s1.1.0"), Record(tmp_path / "work" / "s2.1.0")
    for made in (mine, other):
        made.private.mkdir(parents=True)
    (tmp_path / "join.json").write_text("token")
    spec = specify(work("x"), mine, Ways("bubblewrap", "bubblewrap"), [])
    command = ["/bin/sh", "-c", f"ls {tmp_path} {tmp_path}/work ~root"]
    line = bubblewrap.command_line(str(shutil.which("bwrap")), spec, command, {})
    told = subprocess.run(line, capture_output=True, text=True).stdout
    assert "s1.1.0" in told
    assert not {"join.json", "s2.1.0", ".bashrc"} & set(told.split())


def test_in_bubblewrap_a_replica_reads_its_models_files_and_no_other_models(fenced: Runner, tmp_path: Path) -> None:
    mine, other = tmp_path / "node" / "models" / "chatty", tmp_path / "node" / "models" / "secret"
    for place in (mine, other):
        place.mkdir(parents=True)
        (place / "weights").write_text(f"{place.name}\n")
    tries = f"cat {mine}/weights; touch {mine}/x 2>/dev/null || echo kept; ls {other.parent}; echo $MODEL_PATH"
    told = said(fenced, work(tries, shown=[str(mine)], env={"MODEL_PATH": str(mine)}))
    assert told == f"chatty\nkept\nchatty\n{mine}\n[0]"


def test_a_container_gets_its_models_files_at_their_own_path_to_read(tmp_path: Path) -> None:
    spec = spec_of(work("serve", image="img", shown=[str(tmp_path), "/not/there"]), "podman")
    line = containers.command_line("podman", spec, Path("/env"), {}, cdi=False)
    assert f"type=bind,source={tmp_path},target={tmp_path},readonly" in pairs(line, "--mount")
    assert not any("/not/there" in word for word in line), "an engine refuses to start with a source that is not there"


def test_in_bubblewrap_other_processes_are_not_seen_and_no_device_but_its_own(fenced: Runner) -> None:
    fenced.accept(work("sleep 300", session="s2"))
    until(lambda: state(fenced, "s2") == "running")
    told = said(fenced, work("ls /proc | grep -c '^[0-9]'; ls /dev | tr '\\n' ' '"))
    count, devices = told.split("\n")
    assert int(count) < 6
    always = "console core fd full null ptmx pts random shm stderr stdin stdout tty urandom zero"
    assert set(devices.split()) - {"[0]"} <= set(always.split())


def test_what_a_session_preloads_is_not_loaded_outside_of_the_fence(fenced: Runner, tmp_path: Path) -> None:
    launch = bubblewrap.BubblewrapIsolation(
        spec := fenced._spec(work("x", env={"LD_PRELOAD": "/evil.so"})), _Plain(spec)
    )
    started = launch.launch()
    assert started
    assert "LD_PRELOAD" not in started.env
    assert "/evil.so" in started.argv


class _Plain(bubblewrap.BubblewrapIsolation):
    """The plain fence's launch, without its limits."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec

    def launch(self) -> containers.Launch:
        return containers.Launch(["sh"], self._spec.env, "/")


def test_in_bubblewrap_a_stopped_command_may_say_goodbye(fenced: Runner) -> None:
    fenced.accept(work("trap 'echo bye; exit 7' TERM; echo up; while true; do sleep 0.05; done"))
    until(lambda: "up" in output(fenced))
    fenced.stop(StopOrder(id=WorkId(session="s1", attempt=1), grace=10))
    assert ended(fenced).exit_code == 7
    assert "bye" in output(fenced)


# ── containers, really ───────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """A small image from this host's own programs."""
    need("podman")
    made = io.BytesIO()
    programs = {f"/bin/{name}": str(shutil.which(name)) for name in ("sh", "sleep", "cat", "ls")}
    needed = {path: path for program in programs.values() for path in libraries(program)}
    with tarfile.open(fileobj=made, mode="w") as tar:
        for inside, path in (programs | needed).items():
            tar.add(os.path.realpath(path), inside)
    subprocess.run(["podman", "import", "-", IMAGE], input=made.getvalue(), capture_output=True, check=True)
    yield IMAGE
    subprocess.run(["podman", "rmi", "--force", IMAGE], capture_output=True, check=False)


def libraries(program: str) -> list[str]:
    return re.findall(r"(/\S+) \(0x", subprocess.run(["ldd", program], capture_output=True, text=True).stdout)


@pytest.fixture
def engine(tmp_path: Path, image: str) -> Iterator[Runner]:
    yield from running(tmp_path, Ways("podman", "process"))
    assert mine(tmp_path) == [], "a container was left"


def mine(tmp_path: Path) -> list[str]:
    label = f"label=helmsman.node={tmp_path / 'node' / 'work'}"
    listed = subprocess.run(["podman", "ps", "-aq", "--filter", label], capture_output=True, text=True, check=True)
    return listed.stdout.split()


@pytest.mark.slow
def test_in_a_container_the_image_is_used_and_its_places_are_there(engine: Runner, tmp_path: Path) -> None:
    folder = tmp_path / "volumes" / "cats"
    folder.mkdir(parents=True)
    command = "pwd; ls /; echo hi > cats/a; cat $HELMSMAN_FOLDERS/cats/a; echo x > b; echo $LR; exit 3"
    told = said(engine, work(command, image=IMAGE, mounts={"cats": str(folder)}, env={"LR": "a b"}))
    assert told.startswith("/work\n")
    assert "home" not in told
    assert told.endswith("hi\na b\n[3]")
    assert (record(engine).private / "b").read_text() == "x\n"


@pytest.mark.slow
def test_in_a_container_a_stopped_command_may_say_goodbye(engine: Runner) -> None:
    engine.accept(work("trap 'echo bye; exit 7' TERM; echo up; while true; do sleep 0.05; done", image=IMAGE))
    until(lambda: "up" in output(engine))
    engine.stop(StopOrder(id=WorkId(session="s1", attempt=1), grace=10))
    assert ended(engine).exit_code == 7
    assert output(engine) == "up\nbye\n"


@pytest.mark.slow
def test_a_container_that_does_not_listen_is_killed_after_its_grace(engine: Runner) -> None:
    engine.accept(work("trap '' TERM; echo up; while true; do sleep 0.05; done", image=IMAGE))
    until(lambda: "up" in output(engine))
    engine.stop(StopOrder(id=WorkId(session="s1", attempt=1), grace=600))
    engine.stop(StopOrder(id=WorkId(session="s1", attempt=1), grace=0.2))
    assert ended(engine).exit_code == 128 + signal.SIGKILL


@pytest.mark.slow
def test_a_container_without_a_command_is_held_open(engine: Runner) -> None:
    engine.accept(work(None, image=IMAGE))
    until(lambda: state(engine) == "running")
    engine.stop(StopOrder(id=WorkId(session="s1", attempt=1), grace=5))
    assert str(ended(engine).detail) == "It was stopped."


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("localhost/no-such-image:9", "image localhost/no-such-image:9 cannot be had ("),
        ("--privileged", "--privileged is not an image's name."),
        ("dir:/etc", "dir:/etc is not an image's name."),
    ],
)
def test_an_image_that_cannot_be_had_is_one_sentence(engine: Runner, name: str, why: str) -> None:
    engine.accept(work("true", image=name))
    end = ended(engine)
    assert end.exit_code == 127
    assert str(end.detail).startswith(f"It could not be started: {why}")


@pytest.mark.slow
def test_a_killed_supervisor_leaves_no_container_and_its_work_is_lost(engine: Runner, tmp_path: Path) -> None:
    engine.accept(work("echo up; sleep 300", image=IMAGE))
    until(lambda: "up" in output(engine))
    supervisor = record(engine).supervisor
    assert supervisor
    os.kill(supervisor.pid, signal.SIGKILL)
    assert ended(engine).state == "lost"
    assert mine(tmp_path) == []


@pytest.mark.slow
def test_a_new_agent_goes_on_with_its_containers_and_removes_those_nobody_knows(engine: Runner, tmp_path: Path) -> None:
    engine.accept(work("echo up; sleep 300", image=IMAGE))
    until(lambda: "up" in output(engine))
    stray = ["--label", f"helmsman.node={engine.root}", "--name", f"helmsman-stray-{os.getpid()}"]
    subprocess.run(["podman", "create", *stray, IMAGE, "sleep", "300"], capture_output=True, check=True)
    again = Runner(engine.root, engine.ways)
    again.adopt()
    assert len(mine(tmp_path)) == 1
    assert [w.session for w in again.running()] == ["s1"]
    again.stop(StopOrder(id=WorkId(session="s1", attempt=1), grace=0))
    assert ended(again).state == "exited"


# ── an engine by script: what this host's podman does not do ─────────────────────────────────────


def script(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runner]:
    """`docker` that runs the command as it is, and says that the kernel ended it for its memory."""
    (tmp_path / "bin").mkdir()
    body = f"""echo "$@" >> {tmp_path}/calls
case "$1" in
run) for last; do :; done; exec /bin/sh -c "$last" ;;
inspect) echo true ;;
image) test ! -e {tmp_path}/absent ;;
pull) echo $$ > {tmp_path}/pulling; exec sleep 300 ;;
kill) exit 1 ;;
esac"""
    script(tmp_path / "bin" / "docker", body)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    yield from running(tmp_path, Ways("docker", "process"))


def test_a_container_ended_by_the_kernel_for_its_memory_says_so(docker: Runner, tmp_path: Path) -> None:
    docker.accept(work("kill -9 $$", image="x", memory=100 * MIB))
    end = ended(docker)
    assert end.exit_code == 128 + signal.SIGKILL
    assert str(end.detail) == "It used more than the 100 MiB of memory that it holds. Start it with more."
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[-1] == f"rm --force --volumes helmsman-{record(docker).spec.unique}"  # type: ignore[union-attr]


def test_an_order_to_stop_ends_the_pull_of_an_image(docker: Runner, tmp_path: Path) -> None:
    (tmp_path / "absent").touch()
    docker.accept(work("true", image="huge:1"))
    until(lambda: (tmp_path / "pulling").exists() and (tmp_path / "pulling").read_text())
    docker.stop(StopOrder(id=WorkId(session="s1", attempt=1), grace=600))
    end = ended(docker)
    assert (end.exit_code, str(end.detail)) == (128 + signal.SIGTERM, "It was stopped.")
    assert not Path(f"/proc/{(tmp_path / 'pulling').read_text().strip()}").exists()


def test_an_engine_that_is_away_does_not_keep_work_alive(docker: Runner) -> None:
    docker.accept(work("trap '' TERM; echo up; while true; do sleep 0.05; done", image="x"))
    until(lambda: "up" in output(docker))
    docker.stop(StopOrder(id=WorkId(session="s1", attempt=1), grace=0.2))
    assert ended(docker).exit_code == 128 + signal.SIGKILL
    assert processes.marked(str(record(docker).path)) == []
    until(lambda: idle(docker))


def test_the_environment_file_is_the_owners_only_and_holds_what_the_command_sees(docker: Runner) -> None:
    docker.accept(work("true", image="x", env={"TOKEN": "hush", "TWO": "a\nb"}))
    assert isinstance(ended(docker), WorkReport)
    file = record(docker).path / "environment"
    assert file.stat().st_mode & 0o777 == 0o600
    assert "TOKEN=hush\n" in file.read_text()
    assert "TWO" not in file.read_text()
