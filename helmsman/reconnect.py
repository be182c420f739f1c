"""The way to the embedded cluster, wherever its server is now; when it is gone it is started again."""

from pathlib import Path

import httpx

from helmsman.embedded import Endpoint, ensure_running


class EmbeddedTransport(httpx.AsyncBaseTransport):
    """Sends to the server of `data_dir`. What reached nobody, and a read that broke off, is sent once more."""

    def __init__(self, data_dir: Path, endpoint: Endpoint) -> None:
        self._data_dir = data_dir
        self._url = httpx.URL(endpoint.url)
        self._http = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises `Unavailable` when the server can't be started again."""
        try:
            return await self._send(request)
        except httpx.ConnectError:
            pass
        except (httpx.ReadError, httpx.RemoteProtocolError):
            if request.method != "GET":
                raise
        self._url = httpx.URL((await ensure_running(self._data_dir)).url)
        return await self._send(request)

    async def _send(self, request: httpx.Request) -> httpx.Response:
        request.url = request.url.copy_with(host=self._url.host, port=self._url.port)
        return await self._http.handle_async_request(request)

    async def aclose(self) -> None:
        await self._http.aclose()
