"""Where a database on a PostgreSQL server is: `postgresql://USER@HOST:PORT/NAME`, and how people are told of it."""

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from cluster.errors import Invalid
from cluster.sentence import S

SCHEMES = ("postgresql", "postgres")


def parsed(text: str) -> URL:
    """Of what a person wrote. Raises `Invalid`, without repeating it: there may be a password in it."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        url = None
    if url is None or url.drivername not in SCHEMES or not url.database:
        raise Invalid(
            S(
                "The address of the database can't be read; it has the form {form}. Write %40 for an @ in a password, "
                "or better keep the password in {file}.",
                form="postgresql://USER@HOST:5432/NAME",
                file="~/.pgpass",
            )
        )
    return url.set(drivername="postgresql")


def place(url: URL) -> str:
    """For sentences: no user, no password."""
    given = url.query.get("host")
    host = url.host or (given if isinstance(given, str) else ", ".join(given or ()))
    return f"{url.database} ({host.rpartition('@')[2]})" if host else str(url.database)


def without_password(url: URL) -> str:
    """To be kept: the next time it comes from `~/.pgpass`, PGPASSWORD, or is told again."""
    return URL.create(
        url.drivername,
        url.username,
        host=url.host,
        port=url.port,
        database=url.database,
        query={name: value for name, value in url.query.items() if name != "password"},
    ).render_as_string()
