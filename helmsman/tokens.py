"""`helmsman token`: API tokens for programs."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from cluster.models import NewToken

if TYPE_CHECKING:
    from cluster.client import Client

T = TypeVar("T")
app = typer.Typer(no_args_is_help=True, help="API tokens, with which programs act as somebody.", rich_markup_mode=None)
Of = Annotated[str | None, typer.Option("--user", help="Whose; your own when left out. Of others for admins only.")]


@app.command()
def create(
    name: Annotated[str, typer.Option(help="What it is for.")] = "",
    user: Of = None,
    days: Annotated[float | None, typer.Option(help="After which it ends; never when left out.")] = None,
) -> None:
    """Make a token, and print it: it can't be shown again."""
    typer.echo(_asked(lambda client: client.make_token(NewToken(name=name, user=user, days=days))).token)


@app.command("list")
def list_(user: Of = None) -> None:
    """Every token: id, name, when it was made, when it ends."""
    for token in _asked(lambda client: client.tokens(user)).items:
        made, ends = (f"{when:%Y-%m-%d}" if when else "-" for when in (token.created, token.expires))
        typer.echo(f"{token.id}  {token.name or '-'}  {made}  {ends}")


@app.command()
def revoke(ident: Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it.")]) -> None:
    """End a token, at once."""
    _asked(lambda client: client.revoke_token(ident))


def _asked(call: "Callable[[Client], Awaitable[T]]") -> T:
    """What the cluster of the settings answers."""
    from helmsman.place import connect
    from helmsman.settings import load

    async def ask() -> T:
        async with connect(load({})) as client:
            return await call(client)

    return asyncio.run(ask())
