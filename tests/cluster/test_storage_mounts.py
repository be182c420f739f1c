"""A folder that may only be read, inside each kind of fence."""

import subprocess
from pathlib import Path

import pytest

from cluster.agents import bubblewrap, containers
from cluster.agents.record import Spec


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    for name in ("home/files", "mine", "theirs"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "theirs" / "x").write_text("hello")
    folders = {name: str(tmp_path / name) for name in ("mine", "theirs")}
    return Spec(
        home=str(tmp_path / "home"),
        session="s-1",
        attempt=1,
        rank=0,
        command="true",
        cwd=str(tmp_path / "home" / "files"),
        env={},
        links={},
        cores=[],
        cpu=1,
        memory=1 << 30,
        time_limit=None,
        isolation="bubblewrap",
        image="localhost/x",
        folders=folders,
        read_only=["theirs"],
    )


def test_bubblewrap_lets_a_session_read_and_not_write_it(spec: Spec) -> None:
    if why := bubblewrap.why_not():
        pytest.skip(f"bubblewrap does not work on this machine: {why}")
    script = "cat {theirs}/x && touch {mine}/made && ! touch {theirs}/made".format(**spec.folders)
    line = bubblewrap.command_line("bwrap", spec, ["/bin/sh", "-c", script], {})
    done = subprocess.run(line, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout) == (0, "hello"), done.stderr
    assert (Path(spec.folders["mine"]) / "made").exists()
    assert not (Path(spec.folders["theirs"]) / "made").exists()


@pytest.mark.parametrize("engine", ["podman", "docker"])
def test_a_container_engine_is_told_to_mount_it_read_only(spec: Spec, engine: str, tmp_path: Path) -> None:
    line = containers.command_line(engine, spec, tmp_path / "env", {}, cdi=False)
    mounts = {word.split("target=")[1].split(",")[0]: word for word in line if "target=" in word}
    assert mounts["/folders/theirs"].endswith(",readonly")
    assert "readonly" not in mounts["/folders/mine"] + mounts["/work"]
