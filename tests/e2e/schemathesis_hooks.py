"""Lets schemathesis send the bodies of WebRTC signalling: text, of media types that it does not know."""

from typing import Any

import schemathesis


@schemathesis.serializer("application/sdp", "application/trickle-ice-sdpfrag")
def write_text(context: Any, value: Any) -> bytes:
    """Send text as it is, and anything else as something that is not SDP either."""
    return value if isinstance(value, bytes) else str(value).encode(errors="surrogatepass")
