"""Which cluster this machine belongs to, and as what: from the command line, and remembered in `DATA/join.json`."""

import json
import os
import re
import secrets
import socket
import sys
from argparse import Namespace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from cluster.client import Client
from cluster.errors import Invalid, Unavailable
from cluster.sentence import S

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class Membership(BaseModel):
    """What `helmsman agent` needs to be here again after a restart. The file is readable by its owner only."""

    model_config = ConfigDict(extra="ignore")

    server: str
    """Its URL, or the server.json of a server on this machine, read again at each connection."""
    token: str = ""
    token_file: Path | None = None
    """Where the token is, when it is not remembered (the embedded cluster)."""
    name: str
    group: str | None = None
    rack: str | None = None
    isolation: str | None = None
    address: str | None = None
    cluster: str | None = None
    """The cluster's id, from the first registration: the data here is not for another one."""

    @property
    def remembered(self) -> bool:
        return self.token_file is None

    @property
    def url(self) -> str:
        """The server's, as it is now. Raises OSError, KeyError or ValueError."""
        return self.server if "://" in self.server else str(json.loads(Path(self.server).read_text())["url"])

    def connect(self) -> Client:
        """A client of the server as it is to be found now. Raises `Unavailable`."""
        try:
            return Client.connect(self.url, self.token or _read(self.token_file))
        except (OSError, ValueError, KeyError) as e:
            raise Unavailable(
                S("The server's address cannot be read from {file} ({why}).", file=self.server, why=str(e))
            ) from e

    def remember(self, data: Path) -> None:
        write_private(data / "join.json", self.model_dump_json(indent=1))


def settle(args: Namespace) -> Membership:
    """From the command line; what it does not say, from the last time. Raises `Invalid`."""
    if args.server is not None:
        return Membership(server=args.server, token_file=args.token_file, name=_named(args.name), **_wishes(args, None))
    known = _recall(args.data)
    if args.join is None and known is None:
        raise Invalid(
            S(
                "This machine has not joined a cluster yet: give --join URL and --token-file FILE. "
                "`helmsman agent-token` prints both on the server's machine."
            )
        )
    if args.join is not None and "://" not in args.join:
        raise Invalid(S("{url} is not a server's address; it looks like http://10.0.0.5:8400.", url=args.join))
    token = _read(args.token_file) or (known.token if known else "")
    if not token:
        raise Invalid(S("The agents' token is missing: give --token-file FILE (- reads it from the input)."))
    return Membership(
        server=(args.join or (known.server if known else "")).rstrip("/"),
        token=token,
        name=_named(args.name or (known.name if known else None)),
        cluster=known.cluster if known else None,
        **_wishes(args, known),
    )


def own_secret(data: Path) -> str:
    """This machine's own, made once: with it the server tells it from another one that has taken its name."""
    path = data / "secret"
    if not path.exists():
        write_private(path, secrets.token_urlsafe(24))
    return path.read_text().strip()


def write_private(path: Path, text: str) -> None:
    """Beside, then renamed into place; for the owner only."""
    beside = path.with_suffix(".new")
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def _wishes(args: Namespace, known: Membership | None) -> dict[str, str | None]:
    given = {"group": args.resource_group, "rack": args.rack, "isolation": args.isolation, "address": args.address}
    return {k: v if v is not None or known is None else getattr(known, k) for k, v in given.items()}


def _recall(data: Path) -> Membership | None:
    try:
        return Membership.model_validate_json((data / "join.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as e:
        raise Invalid(S("{file} cannot be read; remove it and join again.", file=str(data / "join.json"))) from e


def _read(file: Path | None) -> str:
    if file is None:
        return ""
    if str(file) == "-":
        return sys.stdin.read().strip()
    try:
        return file.read_text().strip()
    except OSError as e:
        raise Invalid(S("The token cannot be read from {file} ({why}).", file=str(file), why=e.strerror or "")) from e


def _named(wanted: str | None) -> str:
    """The name asked for, else the machine's."""
    if wanted is None:
        short = socket.gethostname().split(".")[0].lower()
        return re.sub(r"[^a-z0-9-]+", "-", short).strip("-") or "localhost"
    if not _NAME.fullmatch(wanted):
        raise Invalid(S("{name} can't be a node's name: letters, digits, dots and dashes, up to 63.", name=wanted))
    return wanted
