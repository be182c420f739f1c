"""`python -m evals.chaos --kills 200 --seed 1 --json evals/chaos.json`: exit 0 when nothing went wrong, else 1."""

import argparse
import asyncio
import shlex
import shutil
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

from cluster.db.temporary import Server
from evals.chaos.storm import storm


def main() -> int:
    """What went wrong is told with the seed; the cluster's folder is kept then."""
    parser = argparse.ArgumentParser(prog="python -m evals.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--agents", type=int, default=3)
    parser.add_argument("--people", type=int, default=8)
    parser.add_argument("--postgres", action="store_true", help="on a PostgreSQL of its own, in a temporary folder")
    parser.add_argument("--json", type=Path, help="where the figures go")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    with Server.lent(durable=True) if given.postgres else nullcontext() as server:
        database = server.url() if server else None
        whole = storm(folder / "cluster", given.kills, given.seed, given.agents, given.people, database)
        report = asyncio.run(whole)
    report.command = shlex.join(["python", "-m", "evals.chaos", *sys.argv[1:]])
    text = report.model_dump_json(indent=1)
    print(text)
    if given.json is not None:
        given.json.write_text(text + "\n")
    if report.wrong:
        print(f"{len(report.wrong)} things went wrong with seed {given.seed}; see {folder}", file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
