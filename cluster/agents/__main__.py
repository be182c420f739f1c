"""`python -m cluster.agents --data DIR --join URL --token-file FILE`, later `--data DIR` alone: `helmsman agent`.

The embedded cluster's: `--server server.json --token-file FILE --name NAME --same-host`.
"""

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

from cluster.agents import discover, processes
from cluster.agents.accelerators import Accelerators
from cluster.agents.agent import Agent
from cluster.agents.choice import choose
from cluster.agents.membership import Membership, own_secret, settle
from cluster.agents.runner import Runner
from cluster.agents.samples import Sampler
from cluster.agents.specify import Ways
from cluster.errors import ClusterError, NotAllowed, NotAuthenticated
from cluster.monitor import add_option, monitored


def main() -> int:
    """Until SIGTERM or SIGINT. 1 with one sentence on stderr when it cannot begin."""
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
        try:
            member = settle(args)
            return asyncio.run(_monitored(args, member))
        except (NotAuthenticated, NotAllowed):
            known = "The server at {} does not know this token; `helmsman agent-token` prints the right one there."
            return _fail(known.format(member.server))
        except ClusterError as e:
            return _fail(str(e))


async def _monitored(args: argparse.Namespace, member: Membership) -> int:
    with monitored(args.monitor):
        return await _serve(args.data.resolve(), member, args.same_host)


async def _serve(data: Path, member: Membership, same_host: bool) -> int:
    """Until SIGTERM or SIGINT; the work goes on without this process."""
    chosen, accelerators = choose(member.isolation, same_host=same_host), Accelerators()
    devices = accelerators.find()
    asked = {"rack": member.rack, "resource_group": member.group, "same_host": same_host, "cluster": member.cluster}
    mine = {"secret": own_secret(data), "address": member.address or _address(member)}
    info = discover.node_info(member.name, devices, chosen.kind).model_copy(update=asked | mine)
    runner = Runner(data / "work", Ways(chosen.kind, chosen.plain, same_host, devices))

    def joined(cluster: str | None) -> None:
        if member.remembered:
            member.model_copy(update={"cluster": cluster}).remember(data)

    agent = Agent(info, runner, member.connect, Sampler(accelerators.find), joined)
    running = asyncio.ensure_future(agent.run())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    _announce(data / "agent.json", member.name)
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await running
    finally:
        (data / "agent.json").unlink(missing_ok=True)
    return 0


def _address(member: Membership) -> str | None:
    try:
        return discover.address(member.url)
    except (OSError, ValueError, KeyError):  # the embedded server is not up yet: it is on this machine
        return discover.address("http://127.0.0.1")


def _announce(path: Path, name: str) -> None:
    """Who runs here, for `helmsman up` and `down`."""
    me = processes.identify(os.getpid())
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps({"pid": me.pid, "started": me.started, "name": name}))
    beside.replace(path)


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cluster.agents", description="The daemon of one node.")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--join", help="the server's URL; remembered with the token in the data directory")
    where.add_argument("--server", help="the server's URL or its server.json; nothing is remembered")
    parser.add_argument("--token-file", type=Path, help="a file with the agents' token, - for the input")
    parser.add_argument("--name", help="the node's name; the machine's when left out")
    parser.add_argument("--data", required=True, type=Path, help="where work is kept; one agent a directory")
    parser.add_argument("--resource-group")
    parser.add_argument("--rack")
    parser.add_argument("--isolation", help="podman, docker, bubblewrap, cgroup2, cgroup1 or process")
    parser.add_argument("--address", help="where other nodes reach this one")
    parser.add_argument(
        "--same-host", action="store_true", help="node and person share this machine (the embedded cluster)"
    )
    add_option(parser)
    return parser


def _line() -> structlog.processors.LogfmtRenderer:
    return structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"])


def _fail(sentence: str) -> int:
    print(sentence, file=sys.stderr)  # noqa: T201 - its own last words
    return 1


if __name__ == "__main__":
    sys.exit(main())
