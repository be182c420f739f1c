"""Bringing a database's schema up to date: Alembic, inside the transaction of whoever opens it."""

from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config

MIGRATIONS = Path(__file__).parent / "migrations"


def migrate(connection: Any, to: str = "head") -> None:
    """Up to the revision `to`. Raises `alembic.util.CommandError` when the schema is of a newer program."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, to)
