"""`python -m evals.benchmarks.programs`: the durable benchmark on SQLite and on PostgreSQL, in turns, and their ratio.

Both sync every commit to the same disk; PostgreSQL is a server of its own on a unix socket. In process, so that nothing
but the database differs. Ratios hold better than rates on a machine that others use.
"""

import argparse
import asyncio
import statistics

from sqlalchemy import URL

from cluster.db.temporary import Missing, Server
from evals.benchmarks.durable import Size, measure


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m evals.benchmarks.programs", description=__doc__)
    parser.add_argument("--size", type=float, default=0.2, help="share of the durable benchmark's 20,000 sessions")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    try:
        with Server.lent(durable=True) as server:
            ratios = [_round(server, Size().times(given.size), number) for number in range(given.rounds)]
    except Missing as e:
        print(f"PostgreSQL can't be measured here: {e}")
        return 1
    print(f"PostgreSQL : SQLite = {statistics.median(ratios):.2f} (median of {len(ratios)})")
    return 0


def _round(server: Server, size: Size, number: int) -> float:
    """One after the other; which comes first changes."""
    asyncio.run(server.sql(f"CREATE DATABASE round{number}"))
    places: list[tuple[str, URL | None]] = [("SQLite", None), ("PostgreSQL", server.url(f"round{number}"))]
    rates = {}
    for name, where in places if number % 2 else reversed(places):
        found = asyncio.run(measure(size, number, over_http=False, where=where))
        rates[name] = found.rate
        ack = statistics.median(found.acknowledged) * 1000
        print(f"{name:10} {found.rate:7.0f} sessions/s, ack p50 {ack:.0f} ms, {found.cpu:.1f} CPU s of ours")
    return rates["PostgreSQL"] / rates["SQLite"]


if __name__ == "__main__":
    raise SystemExit(main())
