"""`python -m cluster.agents --server URL|FILE --token-file FILE --name NAME --data DIR`"""

import argparse
import asyncio
import contextlib
import fcntl
import json
import logging
import os
import signal
import sys
from pathlib import Path

import structlog

from cluster.agents import processes
from cluster.agents.agent import Agent
from cluster.agents.discover import node_info
from cluster.agents.runner import Runner
from cluster.client import Client
from cluster.errors import Unavailable
from cluster.sentence import S


def main() -> int:
    args = _arguments().parse_args()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        processors=[structlog.processors.add_log_level, structlog.processors.TimeStamper("iso"), _line()],
    )
    try:
        args.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = open(args.data / "agent.lock", "w")  # noqa: SIM115 - held until the process ends
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return _fail(f"Another agent already runs on {args.data}; stop it first.")
    except OSError as e:
        return _fail(f"The agent cannot write to {args.data} ({e.strerror}); give it a --data that it can.")
    with lock:
        return asyncio.run(_serve(args))


async def _serve(args: argparse.Namespace) -> int:
    """Until SIGTERM or SIGINT; the work goes on without this process."""
    info = node_info(args.name, resource_group=args.resource_group, rack=args.rack, same_host=args.same_host)
    runner = Runner(args.data.resolve() / "work", info.isolation, same_host=args.same_host)
    agent = asyncio.ensure_future(Agent(info, runner, lambda: _connect(args)).run())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, agent.cancel)
    _announce(args.data / "agent.json", args.name)
    with contextlib.suppress(asyncio.CancelledError):
        await agent
    (args.data / "agent.json").unlink(missing_ok=True)
    return 0


def _connect(args: argparse.Namespace) -> Client:
    """A client of the server as it is to be found now."""
    try:
        url = args.server if "://" in args.server else json.loads(Path(args.server).read_text())["url"]
        return Client.connect(url, args.token_file.read_text().strip())
    except (OSError, ValueError, KeyError) as e:
        raise Unavailable(
            S("The server's address cannot be read from {file} ({why}).", file=args.server, why=str(e))
        ) from e


def _announce(path: Path, name: str) -> None:
    """Who runs here, for `helmsman up` and `down`."""
    me = processes.identify(os.getpid())
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps({"pid": me.pid, "started": me.started, "name": name}))
    beside.replace(path)


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cluster.agents", description="The daemon of one node.")
    parser.add_argument(
        "--server", required=True, help="the server's URL, or its server.json, read again at each connection"
    )
    parser.add_argument("--token-file", required=True, type=Path)
    parser.add_argument("--name", required=True, help="the node's name")
    parser.add_argument("--data", required=True, type=Path, help="where work is kept; one agent a directory")
    parser.add_argument("--resource-group")
    parser.add_argument("--rack")
    parser.add_argument(
        "--same-host", action="store_true", help="node and person share this machine (the embedded cluster)"
    )
    return parser


def _line() -> structlog.processors.LogfmtRenderer:
    return structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"])


def _fail(sentence: str) -> int:
    print(sentence, file=sys.stderr)  # noqa: T201 - its own last words
    return 1


if __name__ == "__main__":
    sys.exit(main())
