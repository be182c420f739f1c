"""A replica to be served: `python -m evals.benchmarks.replica --port N --name NAME [--think SECONDS]`.

`/health` answers; everything else is answered with `NAME` and the body it was sent, after SECONDS.
"""

import argparse
import asyncio

import uvicorn
from starlette.types import Receive, Scope, Send


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--think", type=float, default=0.02)
    given = parser.parse_args()

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        if scope["path"] != "/health":
            await asyncio.sleep(given.think)
        headers = [(b"x-replica", given.name.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    uvicorn.run(answer, host="127.0.0.1", port=given.port, lifespan="off", log_level="warning")


if __name__ == "__main__":
    main()
