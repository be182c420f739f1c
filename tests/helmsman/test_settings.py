"""Settings: file < environment < flags, all mistakes at once."""

import tomllib
from pathlib import Path

import pytest

from helmsman.errors import BadConfig
from helmsman.settings import example, load, secret


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config.toml"
    monkeypatch.setenv("HELMSMAN_CONFIG", str(path))
    path.write_text("")
    return path


def test_flags_go_over_the_environment_and_that_over_the_file(config: Path) -> None:
    config.write_text('model = "from-file"\nlanguage = "ko"\n[endpoint]\nbase_url = "http://a"\ntimeout = 5\n')
    environ = {"HELMSMAN_MODEL": "from-env", "HELMSMAN_ENDPOINT__BASE_URL": "http://b"}
    settings = load({"model": "from-flag", "language": None}, environ)
    assert (settings.model, settings.language) == ("from-flag", "ko")
    assert (settings.endpoint.base_url, settings.endpoint.timeout) == ("http://b", 5)


def test_without_anything_there_are_defaults() -> None:
    assert load({}, {}).model == "g"


def test_every_mistake_is_told_at_once_with_its_place(config: Path) -> None:
    config.write_text('langauge = "ko"\n\n[endpoint]\n# a remark\ntimeout = -1\nbase_ulr = "http://a"\n')
    with pytest.raises(BadConfig) as caught:
        load({"history": "many"}, {"HELMSMAN_THEME": "pink", "HELMSMAN_MODLE": "x", "HELMSMAN_SESSION": "s-1"})
    text = str(caught.value)
    assert f"{config}, line 1: langauge is no setting; is language meant?" in text
    assert f"{config}, line 5: endpoint.timeout: " in text
    assert f"{config}, line 6: endpoint.base_ulr is no setting; is endpoint.base_url meant?" in text
    assert "flag --history: history: " in text
    assert "environment HELMSMAN_THEME: theme: " in text
    assert "HELMSMAN_MODLE is no setting; is HELMSMAN_MODEL meant?" in text
    assert "HELMSMAN_SESSION" not in text


@pytest.mark.parametrize("text", ["model = ", "model = 'a'\nmodel = 'b'", "\x00"])
def test_what_is_no_toml_is_told_with_its_place(config: Path, text: str) -> None:
    config.write_text(text)
    with pytest.raises(BadConfig, match=r"config\.toml: this is not TOML"):
        load({}, {})


def test_a_named_file_that_is_not_there_is_a_mistake(config: Path) -> None:
    config.unlink()
    with pytest.raises(BadConfig, match="no such file"):
        load({}, {})


def test_the_example_is_valid_when_its_comments_are_taken_away(config: Path) -> None:
    lines = [line.removeprefix("# ") if " = " in line else line for line in example().splitlines()]
    tomllib.loads("\n".join(lines))
    config.write_text("\n".join(lines))
    settings = load({}, {})
    assert settings.endpoint.base_url == "http://127.0.0.1:8000/v1"
    assert example().count("\n# model = ") == 1


def test_a_secret_is_not_shown_and_may_stand_in_a_file(config: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sesame\n")
    settings = load({}, {"HELMSMAN_ENDPOINT__API_KEY": "hidden"})
    assert "hidden" not in repr(settings)
    assert secret(settings.endpoint.api_key, None, "key") == "hidden"
    assert secret(None, tmp_path / "key", "key") == "sesame"
    with pytest.raises(BadConfig, match="no-such"):
        secret(None, tmp_path / "no-such", "The key")
