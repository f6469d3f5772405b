"""Fetching: one small document from an address that an operator chose, bounded in bytes, for whoever reads it."""

from http import HTTPStatus

import attrs
import httpx
import trio


@attrs.frozen
class Fetched:
    """What an address answered. Only a 200's ``body`` is read; it is over the limit where the document is."""

    status: int
    body: bytes


async def fetch(url: str, *, timeout_seconds: float, max_bytes: int) -> Fetched:
    """Get a document; redirects are not followed. ``timeout_seconds`` holds for each step, not for the whole.

    Raises:
        httpx.HTTPError: it could not be fetched.
        httpx.InvalidURL: the address is none.
        OSError: the system's certificates can't be read.
        ValueError: an address or a proxy of the environment can't be used.
    """
    body = bytearray()
    # Reading the authorities' certificates takes tens of milliseconds, and they may have changed meanwhile.
    certificates = await trio.to_thread.run_sync(httpx.create_ssl_context)
    async with (
        httpx.AsyncClient(
            verify=certificates,
            follow_redirects=False,
            timeout=timeout_seconds,
            # A proxy of the environment may carry TLS; what is plain must not leave the machine.
            trust_env=httpx.URL(url).scheme == "https",
        ) as client,
        # Uncompressed: some bytes of gzip unpack to gigabytes.
        client.stream("GET", url, headers={"Accept-Encoding": "identity"}) as response,
    ):
        if response.status_code == HTTPStatus.OK:
            # Leaving the loop would leave the generators inside of the client's generators to the garbage collector;
            # a cancellation unwinds them in order.
            with trio.CancelScope() as reading:
                async for piece in response.aiter_raw():
                    body += piece
                    if len(body) > max_bytes:
                        reading.cancel()
    return Fetched(response.status_code, bytes(body))
