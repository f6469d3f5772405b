"""What a node says of a request that it passes on is believed for that request, by that node, for half a minute."""

import attrs
import pytest

from voice_agent.cluster.passage import MAX_AGE_SECONDS, Fault, Passage, PassageError, Signer

SECRET = "s" * 32
NOW = 1_800_000_000.0
PASSAGE = Passage(
    to="b",
    via=("a",),
    at=NOW,
    address="192.0.2.7",
    scheme="https",
    host="voice.example.org",
    came_by_proxy=True,
)
TARGET = b"/v1/sessions/1?x=%2F"


def signed(passage: Passage = PASSAGE, secret: str = SECRET) -> str:
    return Signer("a", secret).sign(passage, method="GET", target=TARGET)


def read(
    value: str, *, method: str = "GET", target: bytes = TARGET, now: float = NOW, node: str = "b"
) -> Passage:
    return Signer(node, SECRET).read(value, method=method, target=target, now=now)


def test_what_was_signed_is_read() -> None:
    """As it was, within its time, whichever clock is ahead."""
    assert read(signed()) == PASSAGE
    assert read(signed(), now=NOW + MAX_AGE_SECONDS) == PASSAGE
    assert read(signed(), now=NOW - MAX_AGE_SECONDS) == PASSAGE
    assert SECRET not in repr(Signer("a", SECRET))


@pytest.mark.parametrize(
    ("value", "changes", "fault"),
    [
        (signed(secret="t" * 32), {}, Fault.SIGNATURE),
        (signed(), {"method": "DELETE"}, Fault.SIGNATURE),
        (signed(), {"target": b"/v1/sessions/2"}, Fault.SIGNATURE),
        (signed()[:-1] + "x", {}, Fault.SIGNATURE),
        ("A" + signed()[1:], {}, Fault.SIGNATURE),
        ("", {}, Fault.SIGNATURE),
        ("no passage", {}, Fault.SIGNATURE),
        ("é", {}, Fault.MALFORMED),
        ("a" * 5000, {}, Fault.MALFORMED),
        (signed(), {"node": "c"}, Fault.ADDRESSEE),
        (signed(), {"now": NOW + MAX_AGE_SECONDS + 1}, Fault.CLOCK),
        (signed(), {"now": NOW - MAX_AGE_SECONDS - 1}, Fault.CLOCK),
        (signed(attrs.evolve(PASSAGE, via=())), {}, Fault.HOPS),
        (signed(attrs.evolve(PASSAGE, via=("a", "c", "d"))), {}, Fault.HOPS),
    ],
)
def test_what_can_t_be_believed_says_why(value: str, changes: dict[str, object], fault: Fault) -> None:
    """Another secret, request, addressee or time; too many hops; garbage."""
    with pytest.raises(PassageError) as error:
        read(value, **changes)  # type: ignore[arg-type]
    assert error.value.fault is fault


def test_a_signed_text_that_is_no_passage_is_malformed() -> None:
    """Of another version, for one; the signature is good."""
    signer = Signer("a", SECRET)
    value = f"e30=.{signer._signature(b'e30=', 'GET', TARGET)}"
    with pytest.raises(PassageError, match="malformed"):
        read(value)
