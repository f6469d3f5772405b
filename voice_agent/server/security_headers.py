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


def completed(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the headers of an answer with those that it lacks."""
    present = list(headers)
    names = {name.lower() for name, _ in present}
    return present + [(name, value) for name, value in HEADERS if name not in names]
