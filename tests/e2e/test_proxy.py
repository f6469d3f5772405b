"""Behind a real nginx, configured as the document says: who calls is known, whatever clients write about it."""

import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trustme

from voice_agent.access.keys import new_key

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
CLIENT = "127.0.0.2"
"""Another address of this machine, which the server does not take for a proxy's."""
PATIENCE_SECONDS = 30
UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
CONFIGURATION = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {folder}/tls.crt;
    ssl_certificate_key {folder}/tls.key;
    {location}
  }}
}}
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@attrs.frozen
class Proxied:
    """nginx before a server."""

    server: Any
    port: int
    trust: ssl.SSLContext
    key: str

    def ask(self, path: str, headers: str = "", *, method: str = "GET") -> tuple[int, dict[str, str]]:
        """Status and headers of a request that comes from another address, under the proxy's name."""
        with (
            socket.create_connection(
                ("127.0.0.1", self.port), timeout=PATIENCE_SECONDS, source_address=(CLIENT, 0)
            ) as tcp,
            self.trust.wrap_socket(tcp, server_hostname="voice.example") as stream,
        ):
            stream.sendall(
                f"{method} {path} HTTP/1.1\r\nHost: voice.example:{self.port}\r\n{headers}\r\n".encode()
            )
            received = b""
            while b"\r\n\r\n" not in received:
                piece = stream.recv(65_536)
                assert piece, received
                received += piece
        status, *lines = received.split(b"\r\n\r\n")[0].decode().split("\r\n")
        return int(status.split()[1]), {
            name.lower(): value for name, value in (line.split(": ", 1) for line in lines)
        }


@pytest.fixture
def proxied(start_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    if NGINX is None:
        pytest.skip("nginx is not installed (Debian package nginx)")
    folder = tmp_path_factory.mktemp("nginx")
    key = new_key("kiosk")
    server = start_server(
        access__trusted_proxies="127.0.0.1",
        access__keys=f'kiosk = {{ sha256 = "{key.sha256}" }}',
        logging__audit_path=str(folder / "audit.log"),
        limits__uncounted_networks="",
    )
    port, ca = free_port(), trustme.CA()
    issued = ca.issue_cert("voice.example")
    (folder / "tls.key").write_bytes(issued.private_key_pem.bytes())
    (folder / "tls.crt").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    document = (ROOT / "docs/access.md").read_text()
    [location] = re.findall(r"```nginx\n(.*?)```", document, re.DOTALL)
    location = location.replace("127.0.0.1:8080", f"127.0.0.1:{server.port}")
    configuration = folder / "nginx.conf"
    configuration.write_text(CONFIGURATION.format(folder=folder, port=port, location=location))
    trust = ssl.create_default_context()
    ca.configure_trust(trust)
    with subprocess.Popen(
        [NGINX, "-p", str(folder), "-c", str(configuration), "-e", "stderr"],
        stderr=subprocess.PIPE,
        text=True,
    ) as nginx:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except ConnectionRefusedError:
                assert nginx.poll() is None, nginx.stderr and nginx.stderr.read()
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield Proxied(server, port, trust, key.text)
        nginx.terminate()
        nginx.wait(PATIENCE_SECONDS)


def audited(proxied: Proxied) -> list[str]:
    """The addresses of refused credentials, as the audit has them."""
    path = next(Path(proxied.server.log_path).parent.parent.glob("nginx*/audit.log"))
    return re.findall(r'"action": ?"authenticate".*?"address": ?"([^"]+)"', path.read_text())


FORGED = (
    "",
    "X-Forwarded-For: 203.0.113.9\r\n",
    "X-Forwarded-For: 203.0.113.9, 127.0.0.1\r\n",
    "X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-For: 10.0.0.1\r\n",
    'X-Forwarded-For: garbage, "\r\n',
    "Forwarded: for=203.0.113.9;proto=http;host=evil.example\r\n",
    "X-Real-IP: 203.0.113.9\r\n",
)


def test_the_client_s_address_is_its_own_whatever_it_writes(proxied: Proxied) -> None:
    """What a client forges stands where nobody looks: the audit has the address that the proxy saw."""
    for forged in FORGED:
        wrong = f"Authorization: Bearer va_kiosk_{64 * '1'}\r\n"
        assert proxied.ask("/metrics", wrong + forged)[0] == 401
    assert audited(proxied) == [CLIENT] * len(FORGED)


def test_a_page_behind_the_proxy_is_its_own(proxied: Proxied) -> None:
    """Scheme, host and port are the browser's: its own page gets as far as the key, another one no further than the door."""
    own = f"https://voice.example:{proxied.port}"
    for origin, status in ((own, 401), ("https://evil.example", 403), (own.replace("https", "http"), 403)):
        assert proxied.ask("/v1/ws", f"{UPGRADE}Origin: {origin}\r\n")[0] == status
        assert (
            proxied.ask("/v1/tickets", f"Content-Length: 0\r\nOrigin: {origin}\r\n", method="POST")[0]
            == status
        )
    shown = f"Authorization: Bearer {proxied.key}\r\nOrigin: {own}\r\n"
    assert proxied.ask("/v1/ws", UPGRADE + shown)[0] == 101
    status, headers = proxied.ask("/")
    assert status == 200
    assert headers["strict-transport-security"] == "max-age=2592000"


def test_a_client_can_t_make_its_page_the_server_s_own(proxied: Proxied) -> None:
    """The scheme is the proxy's word, which takes the place of the client's."""
    forged = "X-Forwarded-Proto: http\r\n"
    assert proxied.ask("/healthz", f"Origin: http://voice.example:{proxied.port}\r\n{forged}")[0] == 403
    assert proxied.ask("/healthz", f"Origin: https://voice.example:{proxied.port}\r\n{forged}")[0] == 200
