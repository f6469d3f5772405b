"""What a client remembers of a session."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from voice_agent.cli.call_resume import ResumePoint, SettledPosition


def ready(seq: int, *, resumed: bool = False, **fields: Any) -> dict[str, Any]:
    """A ``ready`` with an offer."""
    offer = {"token": f"t{seq}", "window_seconds": 60}
    message = {"type": "ready", "seq": seq, "session": "s", "resume": offer} | fields
    return message | {"resumed": True, "heard_ms": 0} if resumed else message


@given(
    losses=st.lists(st.integers(0, 12), min_size=1, max_size=6),
    kept=st.sets(st.integers(2, 200)),
    lives=st.lists(st.integers(0, 8), min_size=7, max_size=7),
)
def test_every_kept_message_is_told_once_however_often_the_connection_breaks(
    losses: list[int], kept: set[int], lives: list[int]
) -> None:
    """Also when it breaks among the missed messages; what the server did not keep and the client missed is gone."""
    point = ResumePoint()
    point.take_ready(ready(1))
    told: list[int] = []
    said: list[int] = []
    seq = 1
    for reached, life in zip([*losses, 10_000], lives, strict=False):
        # The server says `life` messages more; all are kept that are in `kept`; then the connection breaks.
        wire: list[int] = []
        if seq > 1:
            missed = [s for s in said if s in kept and s > point.request(0)["last_seq"]]
            seq += 1
            point.take_ready(ready(seq, resumed=True))
            wire += missed
        for _ in range(life):
            seq += 1
            said.append(seq)
            wire.append(seq)
        seq += 1  # so that no first connection is an empty one
        said.append(seq)
        wire.append(seq)
        told += [s for s in wire[:reached] if point.take({"type": "notice", "seq": s})]
    assert len(told) == len(set(told))
    assert told == sorted(told)
    assert [s for s in told if s in kept] == [s for s in said if s in kept]


def test_a_server_that_repeats_what_was_told_is_not_repeated() -> None:
    """Missed messages come with their own numbers, and one that came before is dropped."""
    point = ResumePoint()
    point.take_ready(ready(1))
    for seq in (2, 3, 4):
        assert point.take({"type": "final", "seq": seq})
    assert point.request(1.25) == {"session": "s", "token": "t1", "last_seq": 4, "audio_ms": 1250}
    point.take_ready(ready(9, resumed=True))
    assert [point.take({"type": "final", "seq": seq}) for seq in (3, 4, 6, 7, 10)] == [
        False,
        False,
        True,
        True,
        True,
    ]
    assert point.request(0) == {"session": "s", "token": "t9", "last_seq": 10, "audio_ms": 0}


def test_the_ready_of_a_resumed_session_does_not_count_before_the_messages_that_it_missed() -> None:
    """Its number is above theirs; a connection that breaks between them must ask for them again."""
    point = ResumePoint()
    point.take_ready(ready(1))
    point.take({"type": "final", "seq": 2})
    point.take_ready(ready(9, resumed=True))
    assert point.request(0)["last_seq"] == 2
    point.take({"type": "final", "seq": 4})
    assert point.request(0)["last_seq"] == 4
    point.take({"type": "pong", "seq": 10})
    assert point.request(0)["last_seq"] == 10


def test_without_an_offer_nothing_can_be_resumed() -> None:
    """A server that keeps nothing, one whose window is 0, and one that says something else."""
    point = ResumePoint()
    for offer in (None, {}, {"token": "t", "window_seconds": 0}, {"token": 5, "window_seconds": 60}, "t"):
        point.take_ready({"type": "ready", "seq": 1, "session": "s", "resume": offer})
        assert not point.is_offered
    point.take_ready(ready(1))
    assert point.is_offered


def messages(*told: tuple[str, int, dict[str, Any]]) -> SettledPosition:
    """Feed (type, position_ms, fields)."""
    settled = SettledPosition()
    for kind, position_ms, fields in told:
        settled.take({"type": kind, "position_ms": position_ms, **fields})
    return settled


def test_while_nobody_speaks_what_was_heard_is_settled_but_for_the_last_moment() -> None:
    """Half a second in which speech may have begun, and a second in hand."""
    assert messages(("pong", 10_000, {})).seconds == 8.5


def test_while_somebody_speaks_nothing_more_is_settled() -> None:
    """The utterance may have to be heard again from its beginning."""
    speaking = ("speech_started", 5_000, {"utterance": 1, "start": 4.6})
    assert messages(("pong", 5_000, {}), speaking, ("partial", 9_000, {"utterance": 1})).seconds == 3.5


def test_a_final_settles_its_utterance_and_no_word_settles_it_too() -> None:
    """And one that failed is closed by the next."""
    speaking = ("speech_started", 2_000, {"utterance": 1, "start": 1.6})
    final = ("final", 4_000, {"utterance": 1, "end": 3.5})
    assert messages(speaking, final).seconds == 2.5
    no_words = ("notice", 4_000, {"code": "no_words", "detail": {"utterance": 1}})
    assert messages(speaking, no_words).seconds == 2.5
    second = ("speech_started", 6_000, {"utterance": 2, "start": 5.8})
    assert messages(speaking, second, ("final", 8_000, {"utterance": 2, "end": 7.5})).seconds == 6.5


def test_a_final_that_was_not_kept_settles_nothing_until_one_is() -> None:
    """A server that dies meanwhile has to hear it again."""
    settled = messages(
        ("pong", 2_000, {}),
        ("final", 9_000, {"utterance": 1, "end": 8.0, "stored": False}),
        ("pong", 9_000, {}),
    )
    assert settled.seconds == 0.5
    settled.take({"type": "final", "position_ms": 12_000, "utterance": 2, "end": 11.0})
    assert settled.seconds == 10.5
