"""Doing a change exactly once, although a reply may get lost on its way."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from tools.base import Result

PATIENCE: Sequence[float] = (0.2, 1.0)
"""Seconds before a change is asked for again whose reply got lost."""


async def once(run: Callable[[], Awaitable[Result]], patience: Sequence[float] = PATIENCE) -> Result:
    """`run`, which carries an idempotency key; asked again when its reply got lost: the key gives the first outcome
    and does nothing."""
    result = await run()
    for wait in patience:
        if not is_(result, "failed", "unavailable"):
            break
        await asyncio.sleep(wait)
        result = await run()
    return result


def is_(result: Result, status: str, code: str) -> bool:
    """It ended so, for this reason."""
    return result.status == status and bool(result.reasons) and result.reasons[0].code == code
