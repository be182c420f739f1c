"""The command line's own matters; what each command does is tested with its part."""

import sys
import tomllib
from pathlib import Path

import pytest

from helmsman import cli


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("DATA", "STATE", "CONFIG"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["helmsman", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0), *capsys.readouterr()


def test_it_says_its_version(monkeypatch, capsys) -> None:
    code, out, _ = run(monkeypatch, capsys, "--version")
    assert code == 0
    assert out.startswith("helmsman 0.")


def test_config_prints_a_file_that_can_be_used(monkeypatch, capsys) -> None:
    code, out, _ = run(monkeypatch, capsys, "config")
    assert code == 0
    assert tomllib.loads(out) == {"endpoint": {}, "cluster": {}}


def test_a_broken_configuration_stops_everything_before_it_starts(monkeypatch, capsys, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("modle = 3\ntheme = 'pink'\n")
    monkeypatch.setenv("HELMSMAN_CONFIG", str(tmp_path / "c.toml"))
    code, out, err = run(monkeypatch, capsys, "ask", "list")
    assert (code, out) == (2, "")
    assert "line 1" in err
    assert "line 2" in err


def test_a_cluster_without_a_token_is_a_sentence(monkeypatch, capsys) -> None:
    monkeypatch.setenv("HELMSMAN_CLUSTER__URL", "http://127.0.0.1:9")
    code, _, err = run(monkeypatch, capsys, "ask", "list")
    assert code == 2
    assert "token" in err


def test_a_cluster_that_is_not_there_is_a_sentence(monkeypatch, capsys) -> None:
    monkeypatch.setenv("HELMSMAN_CLUSTER__URL", "http://127.0.0.1:9")
    monkeypatch.setenv("HELMSMAN_CLUSTER__TOKEN", "t")
    code, _, err = run(monkeypatch, capsys, "ask", "list")
    assert code == 5
    assert "http://127.0.0.1:9" in err
    assert "Traceback" not in err


def test_a_bug_is_one_sentence_too(monkeypatch, capsys) -> None:
    monkeypatch.setattr("helmsman.settings.load", lambda flags: 1 / 0)
    code, _, err = run(monkeypatch, capsys, "ask", "list")
    assert code == 5
    assert err.count("\n") == 1
    assert "ZeroDivisionError" in err


def test_the_command_line_is_there_without_the_heavy_libraries() -> None:
    import subprocess

    heavy = ("langgraph", "langchain_core", "sqlalchemy", "prompt_toolkit", "mcp")
    code = f"import sys, helmsman.cli; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
