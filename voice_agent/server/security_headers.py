"""What every answer tells browsers to be careful about, whoever wrote it: the application, the door, the guard.

An answer that has one of these headers already keeps its own; the console page has a policy that lets its scripts run.
"""

from collections.abc import Iterable
from typing import Final

HEADERS: Final = (
    # What is no page loads nothing, runs nothing and stands in no frame (Content Security Policy, level 3).
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    # A type is what we say that it is (Fetch standard, section 3.6).
    (b"x-content-type-options", b"nosniff"),
    # Addresses of ours, some of which are secret, are told to nobody.
    (b"referrer-policy", b"no-referrer"),
    # Pages of other sites can't embed answers; those that may read them do so by CORS (Fetch standard, section 3.7).
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)

STRICT_TRANSPORT_SECURITY: Final = b"strict-transport-security"


def completed(
    headers: Iterable[tuple[bytes, bytes]], *, hsts_seconds: float | None = None
) -> list[tuple[bytes, bytes]]:
    """Return the headers of an answer with those that it lacks.

    ``hsts_seconds`` is for answers over TLS: browsers come back by TLS alone for so long (RFC 6797); None elsewhere,
    where it must not be sent.
    """
    present = list(headers)
    names = {name.lower() for name, _ in present}
    present += [(name, value) for name, value in HEADERS if name not in names]
    if hsts_seconds and STRICT_TRANSPORT_SECURITY not in names:
        present.append((STRICT_TRANSPORT_SECURITY, b"max-age=%d" % int(hsts_seconds)))
    return present
