"""All settings in one place: `helmsman login`'s < the file in the XDG place < `HELMSMAN_*` in the environment < flags.

Every mistake of all is reported at once, as one `BadConfig`, before anything is started.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from cluster.models import S
from helmsman import logins
from helmsman.errors import BadConfig

PREFIX = "HELMSMAN_"
NOT_OURS = frozenset(
    {f"HELMSMAN_{n}" for n in ("SESSION", "SESSION_ID", "SESSION_NAME", "NODE", "RANK", "ATTEMPT", "USER", "FOLDERS")}
    | {"HELMSMAN_HOSTS", "HELMSMAN_WORK"}
)
"""Variables that the cluster sets inside sessions; they are no settings."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EndpointSettings(_Section):
    """A model behind the OpenAI API (vLLM, llama.cpp, Ollama, a hosted one). Used when `model` is not "g"."""

    base_url: str | None = Field(
        default=None, pattern=r"^https?://", examples=["http://127.0.0.1:8000/v1"], description="the API's address"
    )
    api_key: SecretStr | None = Field(default=None, examples=["…"], description="or a file in api_key_file")
    api_key_file: Path | None = Field(
        default=None, examples=["~/.secrets/endpoint"], description="a file with the key alone"
    )
    timeout: float = Field(default=60, gt=0, le=3600, description="seconds that one answer may take")
    retries: int = Field(default=2, ge=0, le=10, description="how often a lost connection is tried again")


class ClusterSettings(_Section):
    """Which cluster. Without a url: the embedded one on this machine, started when it is needed."""

    url: str | None = Field(
        default=None,
        pattern=r"^https?://",
        examples=["https://cluster.example.com"],
        description="the server's address",
    )
    token: SecretStr | None = Field(default=None, examples=["…"], description="or a file in token_file")
    token_file: Path | None = Field(
        default=None, examples=["~/.secrets/cluster"], description="a file with the token alone"
    )


class Settings(_Section):
    """What a person can set."""

    model: str = Field(
        default="g",
        min_length=1,
        description='"g" ships with Helmsman; another name goes to [endpoint]',
    )
    model_path: Path | None = Field(default=None, examples=["~/models/mine"], description="another G, e.g. a tuned one")
    language: Literal["auto", "en", "ko"] = Field(default="auto", description='"auto" follows each line')
    theme: Literal["auto", "none"] = Field(default="auto", description='"none" is without colours')
    history: int = Field(default=5000, ge=0, le=1_000_000, description="typed lines that are kept for the arrow keys")
    approvals: list[str] = Field(
        default=[],
        description='what needs no question: W tools with patterns, e.g. ["create_folder exp-* project=vision"]',
    )
    langsmith: bool = Field(default=False, description="true lets LangSmith trace, as its own variables say")
    endpoint: EndpointSettings = EndpointSettings()
    cluster: ClusterSettings = ClusterSettings()

    @property
    def data_dir(self) -> Path:
        """Conversations, and the embedded cluster's data."""
        return platformdirs.user_data_path("helmsman")

    @property
    def state_dir(self) -> Path:
        """Typed history and logs."""
        return platformdirs.user_state_path("helmsman")


def config_path() -> Path:
    """Where the file is looked for; `HELMSMAN_CONFIG` names another."""
    named = os.environ.get(f"{PREFIX}CONFIG")
    return Path(named) if named else platformdirs.user_config_path("helmsman") / "config.toml"


def login_path() -> Path:
    """Where `helmsman login` keeps its cluster."""
    return config_path().with_name(logins.NAME)


def load(flags: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read all three places. Raises `BadConfig` that holds every mistake, with file and line, and what to do."""
    environ = os.environ if environ is None else environ
    path = config_path()
    mistakes: list[str] = []
    text, from_file = _read(path, mistakes)
    from_env = _from_environment(environ, mistakes)
    from_flags = {k: v for k, v in (flags or {}).items() if v is not None}
    given = _merge(_merge(from_file, from_env), from_flags)
    try:
        settings = Settings.model_validate(_merge(logins.under(_login(mistakes), given), given))
    except ValidationError as e:
        origins = [("flag", from_flags), ("env", from_env), ("file", from_file)]
        mistakes += [_mistake(error["loc"], error["msg"], error["type"], origins, path, text) for error in e.errors()]
    if mistakes:
        raise BadConfig(S("The settings have mistakes; nothing was started.\n{mistakes}", mistakes="\n".join(mistakes)))
    return settings


def secret(value: SecretStr | None, file: Path | None, what: str) -> str | None:
    """A secret given directly or in a file. Raises `BadConfig` when the file can't be read."""
    if value is not None:
        return value.get_secret_value()
    if file is None:
        return None
    try:
        return file.expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as e:
        why = getattr(e, "strerror", None) or str(e)
        raise BadConfig(S("{what} can't be read from {path}: {why}.", what=what, path=str(file), why=why)) from e


def example() -> str:
    """A configuration file with everything in it, commented out: every key, what it is for, its default."""
    lines = [
        f"# Helmsman's settings. Place: {config_path()}",
        f"# Each can also be given as {PREFIX}…, e.g. {PREFIX}MODEL,",
    ]
    lines += [f"# {PREFIX}ENDPOINT__BASE_URL; a flag of the command goes over both.", "", *_commented(Settings, "")]
    return "\n".join(lines) + "\n"


# ── the three places ─────────────────────────────────────────────────────────────────────────────


def _read(path: Path, mistakes: list[str]) -> tuple[str, dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
        return text, tomllib.loads(text)
    except FileNotFoundError:
        if os.environ.get(f"{PREFIX}CONFIG"):
            mistakes.append(f"  {path}: there is no such file ({PREFIX}CONFIG names it)")
    except tomllib.TOMLDecodeError as e:
        mistakes.append(f"  {path}: this is not TOML: {e}")
    except (OSError, UnicodeDecodeError) as e:
        mistakes.append(f"  {path}: can't be read: {getattr(e, 'strerror', None) or e}")
    return "", {}


def _login(mistakes: list[str]) -> logins.Login | None:
    path = login_path()
    try:
        return logins.read(path)
    except (OSError, ValueError) as e:
        why = getattr(e, "strerror", None) or e
        mistakes.append(f"  {path}: can't be read: {why}; `helmsman login` or `helmsman logout` makes it anew")
    return None


def _from_environment(environ: Mapping[str, str], mistakes: list[str]) -> dict[str, Any]:
    """`HELMSMAN_ENDPOINT__BASE_URL` → {"endpoint": {"base_url": …}}; a name close to one of ours is a mistake."""
    found: dict[str, Any] = {}
    known = {name.upper(): path for name, path in _keys().items()}
    for variable, value in sorted(environ.items()):
        name = variable.removeprefix(PREFIX)
        if name == variable or name == "CONFIG" or variable in NOT_OURS or value == "":
            continue
        if name in known:
            _put(found, known[name], _typed(known[name], value))
        elif close := difflib.get_close_matches(name, known, 1, 0.8):
            mistakes.append(f"  environment: {variable} is no setting; is {PREFIX}{close[0]} meant?")
    return found


def _keys() -> dict[str, tuple[str, ...]]:
    keys: dict[str, tuple[str, ...]] = {}
    for name, field in Settings.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, _Section):
            keys |= {f"{name}__{inner}": (name, inner) for inner in section.model_fields}
        else:
            keys[name] = (name,)
    return keys


def _typed(path: tuple[str, ...], value: str) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if path == ("approvals",) else value


def _put(tree: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
    tree[path[-1]] = value


def _merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(value, Mapping) and isinstance(below, Mapping) else value
    return merged


# ── mistakes ─────────────────────────────────────────────────────────────────────────────────────


def _mistake(
    loc: tuple[int | str, ...],
    message: str,
    kind: str,
    origins: list[tuple[str, dict[str, Any]]],
    path: Path,
    text: str,
) -> str:
    names = [str(part) for part in loc if isinstance(part, str)]
    dotted = ".".join(names)
    where = _where(names, origins, path, text)
    if kind != "extra_forbidden":
        return f"  {where}: {dotted}: {message[:1].lower()}{message[1:]}"
    close = difflib.get_close_matches(".".join(names).replace(".", "__"), _keys(), 1, 0.6)
    hint = f"is {close[0].replace('__', '.')} meant?" if close else "`helmsman config` lists what there is"
    return f"  {where}: {dotted} is no setting; {hint}"


def _where(names: list[str], origins: list[tuple[str, dict[str, Any]]], path: Path, text: str) -> str:
    for origin, tree in origins:
        if _has(tree, names):
            if origin == "flag":
                return f"flag --{'-'.join(names)}"
            if origin == "env":
                return f"environment {PREFIX}{'__'.join(names).upper()}"
            return f"{path}, line {_line(text, names)}"
    return str(path)


def _has(tree: Any, names: list[str]) -> bool:
    for name in names:
        if not isinstance(tree, Mapping) or name not in tree:
            return False
        tree = tree[name]
    return True


def _line(text: str, names: list[str]) -> int:
    """The line on which a key stands, counted from 1 (TOML's own reader doesn't keep it)."""
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\s*([\w.-]+)\s*\]", line):
            section = header[1]
            if section == ".".join(names):
                return number
        key = re.match(r"\s*([\w.-]+)\s*=", line)
        if key and ".".join(filter(None, [section, key[1]])).split(".")[: len(names)] == names:
            return number
    return 1


# ── the example ──────────────────────────────────────────────────────────────────────────────────


def _commented(section: type[_Section], name: str) -> list[str]:
    lines = [f"[{name}]", f"# {' '.join((section.__doc__ or '').split())}"] if name else []
    later: list[str] = []
    for key, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, _Section):
            later += ["", *_commented(field.annotation, key)]
        else:
            lines.append(
                f"# {key} = {_toml(field.examples[0] if field.examples else field.default)}  # {field.description}"
            )
    return lines + later


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else str(value)
