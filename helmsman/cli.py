"""The command line. Heavy things are imported by the command that needs them, so that the prompt is there at once."""

import asyncio
import logging
import os
import sys
from collections.abc import Coroutine
from contextlib import AsyncExitStack, suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cluster.errors import ClusterError
from cluster.models import S, Sentence
from helmsman import tokens
from helmsman.errors import BadConfig, HelmsmanError

if TYPE_CHECKING:
    from helmsman.desk import Desk
    from helmsman.settings import Settings

app = typer.Typer(add_completion=False, no_args_is_help=False, pretty_exceptions_enable=False, rich_markup_mode=None)
app.add_typer(tokens.app, name="token")

Model = Annotated[str | None, typer.Option("--model", help='"g", or the name of a model at the endpoint.')]
Scenario = Annotated[
    Path | None, typer.Option("--scenario", help="A scenario file: a simulated cluster instead of a real one.")
]
AskedBy = Annotated[str | None, typer.Option("--user", help="Who asks; an admin of the scenario when left out.")]

MonitorPort = Annotated[
    int | None,
    typer.Option("--monitor", metavar="PORT", help="Let aiomonitor look into the process on loopback, to find a bug."),
]


def main() -> None:
    """The entry point. A person sees one sentence and never a traceback; the exit code says what kind it was."""
    try:
        app()
    except (HelmsmanError, ClusterError) as e:
        _complain(e.sentence)
        sys.exit(_code(e))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except Exception as e:
        logging.getLogger(__name__).debug("broke", exc_info=True)
        _complain(
            S(
                "Helmsman itself failed ({kind}: {why}). HELMSMAN_DEBUG=1 shows where.",
                kind=type(e).__name__,
                why=str(e),
            )
        )
        if _debugging():
            raise
        sys.exit(5)


@app.callback(invoke_without_command=True)
def chat(
    context: typer.Context,
    demo: Annotated[bool, typer.Option("--demo", help="Chat with a simulated fleet.")] = False,
    scenario: Scenario = None,
    user: AskedBy = None,
    model: Model = None,
    resume: Annotated[str | None, typer.Option("--resume", help="Go on with this conversation.")] = None,
    version: Annotated[bool, typer.Option("--version", help="Say which version this is.")] = False,
) -> None:
    """Run a GPU cluster by talking to it. Without a command: the chat."""
    if version:
        from importlib.metadata import version as version_of

        typer.echo(f"helmsman {version_of('helmsman')}")
    elif context.invoked_subcommand is None:
        settings = _settings(model=model)
        code = _run(_chat(settings, scenario, demo or scenario is not None, user, resume))
        raise typer.Exit(code)


@app.command()
def ask(
    texts: Annotated[
        list[str], typer.Argument(metavar="TEXT…", help='What you want; more are further turns. "-" reads cases.')
    ],
    scenario: Scenario = None,
    user: AskedBy = None,
    approve: Annotated[
        Literal["never", "safe", "all"], typer.Option(help="Which plans are answered with yes: none, W only, all.")
    ] = "never",
    model: Model = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Ask once, without a chat; for scripts. Exit codes: 0 done, 2 usage, 3 not understood or asked back, 4 refused,
    5 failed, 6 approval was needed and not given."""
    from helmsman import ask as asking

    settings = _settings(model=model)
    _log(settings)
    options = asking.Options(scenario=scenario, user=user, approve=approve, as_json=as_json)
    if texts == ["-"]:
        code = _run(asking.ask_cases(settings, sys.stdin, options))
    else:
        code = _run(asking.ask(settings, texts, options))
    raise typer.Exit(code)


@app.command()
def web(
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 0,
    demo: Annotated[bool, typer.Option("--demo", help="On a simulated fleet.")] = False,
    scenario: Scenario = None,
    user: AskedBy = None,
    model: Model = None,
    monitor: MonitorPort = None,
) -> None:
    """The same conversations in a browser, on this machine only."""
    settings = _settings(model=model)
    _log(settings)
    _run(_web(settings, scenario, demo or scenario is not None, user, port, monitor))


@app.command("mcp")
def mcp_server(
    http: Annotated[
        str | None,
        typer.Option(
            "--http", metavar="[ADDRESS:]PORT", help="Over HTTP, for clients with a token; 0 takes a free port."
        ),
    ] = None,
    demo: Annotated[bool, typer.Option("--demo", help="On a simulated fleet.")] = False,
    scenario: Scenario = None,
    user: AskedBy = None,
) -> None:
    """Helmsman's tools for other agents (Model Context Protocol), over standard input and output; changes are done
    only when a person approves them in that client."""
    from helmsman.mcp.reach import Which

    settings = _settings()
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    which = Which(settings, scenario, demo or scenario is not None, user)
    if http is None:
        from helmsman.mcp import stdio

        _run(stdio.serve(which))
    else:
        from helmsman.mcp import web as over_http

        _run(over_http.serve(which, http, lambda line: typer.echo(line, err=True)))


@app.command()
def up(
    listen: Annotated[
        str | None,
        typer.Option("--listen", metavar="ADDRESS:PORT", help="For other machines too: 0.0.0.0:8400. It stays so."),
    ] = None,
    monitor: MonitorPort = None,
) -> None:
    """Start the embedded cluster of this machine."""
    from helmsman.embedded import ensure_running

    endpoint = _run(ensure_running(_settings().data_dir, listen=listen, monitor=monitor))
    typer.echo(str(S("The cluster of this machine runs at {url}.", url=endpoint.url)))


@app.command()
def down() -> None:
    """Stop the embedded cluster's server and agent; running sessions go on and are found again by `up`."""
    from helmsman.embedded import stop

    typer.echo(str(_run(stop(_settings().data_dir))))


@app.command()
def agent(
    join: Annotated[str | None, typer.Option("--join", metavar="URL", help="The server's address.")] = None,
    token: Annotated[str | None, typer.Option("--token", help="The agents' token.")] = None,
    token_file: Annotated[str | None, typer.Option("--token-file", help='A file with it; "-" is the input.')] = None,
    name: Annotated[str | None, typer.Option("--name", help="The node's name; this machine's when left out.")] = None,
    group: Annotated[str | None, typer.Option("--group", help="The resource group to join.")] = None,
    rack: Annotated[str | None, typer.Option("--rack", help="Where it stands.")] = None,
    data: Annotated[Path | None, typer.Option("--data", help="Where work and the token are kept.")] = None,
    isolation: Annotated[
        str | None, typer.Option("--isolation", help="podman, docker, bubblewrap, cgroup2, cgroup1 or process.")
    ] = None,
    address: Annotated[str | None, typer.Option("--address", help="Where other nodes reach this one.")] = None,
    monitor: MonitorPort = None,
) -> None:
    """Make this machine a node of a cluster, until it is stopped. The next time `helmsman agent` alone is enough."""
    from helmsman.embedded import become_agent

    options = {"join": join, "token-file": token_file, "name": name, "resource-group": group, "rack": rack}
    options |= {"isolation": isolation, "address": address, "monitor": None if monitor is None else str(monitor)}
    become_agent(data or _settings().data_dir / "agent", options, token)


@app.command("agent-token")
def agent_token() -> None:
    """Print the command that makes another machine a node of this one's cluster."""
    from helmsman.embedded import join_command

    typer.echo(_run(join_command(_settings().data_dir)))


@app.command()
def login(
    url: Annotated[str, typer.Argument(metavar="URL", help="The cluster's address: https://cluster.example.com.")],
    token_file: Annotated[
        str | None, typer.Option("--token-file", help='A file with a token; "-" is the input. Else you are asked.')
    ] = None,
) -> None:
    """Use a cluster on another machine from now on: by its login server in the browser, or with a token."""
    from helmsman import login as logging_in

    def ask() -> str:
        if not sys.stdin.isatty():
            raise BadConfig(S("{url} needs a token: give it with --token-file FILE, or - for the input.", url=url))
        return str(typer.prompt(str(S("Token")), hide_input=True, err=True))

    user = _run(logging_in.login(url, token_file, _complain, ask))
    _tell(S("You are {user} at {url} now.", user=user.name, url=url))
    if (named := _settings().cluster.url) != url.rstrip("/"):
        _complain(S("Warning: the settings name {url}, which goes before this login.", url=str(named)))


@app.command()
def logout() -> None:
    """Forget the cluster of `helmsman login`, and end the token that was made by it."""
    from helmsman import login as logging_in

    _tell(_run(logging_in.logout()))


@app.command()
def status() -> None:
    """What the cluster looks like, in a few lines."""
    _run(_status(_settings()))


@app.command()
def config() -> None:
    """Print a configuration file with everything in it, commented."""
    from helmsman.settings import example

    typer.echo(example(), nl=False)


# ── what the commands do ─────────────────────────────────────────────────────────────────────────


async def _chat(
    settings: "Settings", scenario: Path | None, simulated: bool, user: str | None, resume: str | None
) -> int:
    from helmsman.terminal import Opened, Options, chat

    async with AsyncExitStack() as stack:

        async def opener() -> Opened:
            desk = await _open(stack, settings, scenario, simulated, user)
            return Opened(await desk.open(resume), desk)

        language = None if settings.language == "auto" else settings.language
        options = Options(
            language=language,
            history=settings.state_dir / "lines" if settings.history else None,
            history_lines=settings.history,
            color=settings.theme != "none",
        )
        return await chat(opener, options)


async def _web(
    settings: "Settings", scenario: Path | None, simulated: bool, user: str | None, port: int, monitor: int | None
) -> None:
    from cluster.monitor import monitored
    from helmsman.web.serve import serve

    async with AsyncExitStack() as stack:
        stack.enter_context(monitored(monitor))
        desk = await _open(stack, settings, scenario, simulated, user)
        await serve(desk, lambda link: typer.echo(link), port)


async def _open(
    stack: AsyncExitStack, settings: "Settings", scenario: Path | None, simulated: bool, user: str | None
) -> "Desk":
    """The desk on the cluster asked for; the heavy imports happen in a thread, so that typing goes on meanwhile."""
    opening = await asyncio.to_thread(_import_opening)
    desk: Desk = await opening.enter(stack, settings, scenario, simulated, user)
    return desk


def _import_opening() -> Any:
    from helmsman import opening

    return opening


async def _status(settings: "Settings") -> None:
    from helmsman.embedded import find
    from helmsman.opening import status_view
    from helmsman.place import connect
    from helmsman.render import language_of_locale, render, standard_look

    if settings.cluster.url is None and await find(settings.data_dir) is None:
        raise HelmsmanError(S("The cluster of this machine is not running. Start it with `helmsman up`."))
    language = language_of_locale() if settings.language == "auto" else settings.language
    async with connect(settings) as client:
        typer.echo(render(await status_view(client, language), standard_look(language)))


# ── plumbing ─────────────────────────────────────────────────────────────────────────────────────


def _settings(**flags: Any) -> "Settings":
    from helmsman.settings import load

    return load(flags)


def _log(settings: "Settings") -> None:
    """Warnings and tracebacks go to a file, made when there is the first; where that can't be, nowhere."""
    path = settings.state_dir / "logs" / "helmsman.log"
    handler: logging.Handler = logging.NullHandler()
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handler = RotatingFileHandler(path, maxBytes=1 << 20, backupCount=1, encoding="utf-8", delay=True)
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def _complain(sentence: Sentence) -> None:
    _tell(sentence, err=True)


def _tell(sentence: Sentence, err: bool = False) -> None:
    from helmsman.render import language_of_locale
    from tools.words import say

    typer.echo(say(sentence, language_of_locale()), err=err)


def _code(error: HelmsmanError | ClusterError) -> int:
    if isinstance(error, HelmsmanError):
        return error.exit_code
    return {"scenario": 2, "not_allowed": 4, "not_found": 4}.get(error.code, 5)


def _debugging() -> bool:
    return bool(os.environ.get("HELMSMAN_DEBUG"))
