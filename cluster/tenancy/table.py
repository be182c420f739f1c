"""The policy as a table for people: `python -m cluster.tenancy.table`. A test holds README.md to it."""

import sys

from cluster.access import RELATIONS, enforcer, who_may


def table() -> str:
    """One row for each action, one column for each relation; an x where the policy allows it."""
    rows = [f"| may | {' | '.join(RELATIONS)} |", "|---|" + "---|" * len(RELATIONS)]
    actions = dict.fromkeys((kind, action) for _, kind, action in enforcer().get_policy())
    for kind, action in actions:
        marks = ["x" if may else "" for may in who_may(action, kind)]
        rows.append(f"| {action} {kind} | {' | '.join(marks)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
