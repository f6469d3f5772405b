"""ICE servers: the addresses that a caller may use, and credentials that end by themselves. Pure.

The credentials are those of coturn's ``use-auth-secret`` (draft-uberti-behave-turn-rest-00): the user name is
``<expiry as Unix time>:<name>`` and the password is ``base64(HMAC-SHA1(shared secret, user name))``, so the TURN server
checks them without knowing any user.
"""

import base64
import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

from voice_agent.settings.lists import split_list
from voice_agent.settings.schema import WebRtcSettings
from voice_agent.transports.webrtc.config import IceServer

CREDENTIAL_NAME: Final = "caller"


def turn_credentials(secret: str, *, expires_at: int, name: str = CREDENTIAL_NAME) -> tuple[str, str]:
    """Return user name and password that a TURN server with the same secret takes until ``expires_at`` (Unix time)."""
    username = f"{expires_at}:{name}"
    digest = hmac.new(secret.encode(), username.encode(), hashlib.sha1).digest()
    return username, base64.b64encode(digest).decode("ascii")


def ice_servers(settings: WebRtcSettings, *, unix_seconds: float) -> tuple[IceServer, ...]:
    """Return the configured servers with credentials that hold from now on (``unix_seconds``)."""
    stun, turn = split_list(settings.stun_servers), split_list(settings.turn_servers)
    servers = [IceServer(urls=stun)] if stun else []
    if turn:
        expires_at = int(unix_seconds + settings.turn_credential_ttl_seconds)
        username, credential = turn_credentials(settings.turn_secret, expires_at=expires_at)
        servers.append(IceServer(urls=turn, username=username, credential=credential))
    return tuple(servers)


def link_headers(servers: Sequence[IceServer]) -> tuple[str, ...]:
    """Write ``Link`` header values (RFC 9725, section 4.6); nothing in them needs escaping."""
    return tuple(_link(url, server) for server in servers for url in server.urls)


def _link(url: str, server: IceServer) -> str:
    link = f'<{url}>; rel="ice-server"'
    if server.username is not None:
        link += (
            f'; username="{server.username}"; credential="{server.credential}"; credential-type="password"'
        )
    return link
