"""What `helmsman login` keeps: one cluster's address and the token for it, in a file that only its owner can read."""

import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from cluster.models import S
from helmsman.errors import HelmsmanError

NAME = "login.json"
"""Beside the configuration file."""


class Login(NamedTuple):
    """`made`: the token was made for this login, so that logging out ends it."""

    url: str
    token: str
    made: bool = False


def read(path: Path) -> Login | None:
    """None without a file. Raises `ValueError` for one that can't be used, `OSError` for one that can't be read."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    fields = [told.get(name) for name in ("url", "token")] if isinstance(told, dict) else []
    if len(fields) != 2 or not all(isinstance(field, str) and field for field in fields):
        raise ValueError("it holds no login")
    return Login(told["url"], told["token"], told.get("made") is True)


def keep(path: Path, login: Login) -> None:
    """Write it, 0600 from the first byte on, in one step: a login that fails half-way leaves the one before."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, new = tempfile.mkstemp(dir=path.parent, prefix=NAME)  # 0600
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(login._asdict(), file)
            Path(new).replace(path)
        except BaseException:
            with suppress(OSError):
                Path(new).unlink()
            raise
    except OSError as e:
        why = e.strerror or str(e)
        raise HelmsmanError(S("The login can't be kept in {path}: {why}.", path=str(path), why=why)) from e


def under(login: Login | None, given: dict[str, Any]) -> dict[str, Any]:
    """What the login adds to the settings `given` elsewhere: nothing when they name another cluster, as a token is
    only for the cluster that it was given for; and no token when they have one."""
    said = given.get("cluster")
    said = said if isinstance(said, dict) else {}
    if login is None or said.get("url", login.url) != login.url:
        return {}
    own = "token" in said or "token_file" in said
    return {"cluster": {"url": login.url} | ({} if own else {"token": login.token})}
