"""A session goes on behind a lost connection: under virtual time, with a scripted model, on the store in memory.

The model says of an utterance how many tenths of a second of it were loud: two halves of a word can't pass for the whole.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import attrs
import numpy as np
import pytest
import trio
from trio.testing import MockClock

from voice_agent.core.commands import CallOptions, Flush, Resume, Start, Stop, TypedText
from voice_agent.core.errors import (
    BadAudioError,
    IceTimeoutError,
    ResumeRefusedError,
    ResumeTokenUsedError,
    ResumeUnavailableError,
    StoreUnavailableError,
)
from voice_agent.core.events import (
    CloseReason,
    Notice,
    SessionClosed,
    SessionEvent,
    SessionReady,
    SpeechStarted,
    Transcript,
)
from voice_agent.core.frames import AudioFrame
from voice_agent.core.identity import Identity
from voice_agent.core.journal import EntryKind, RecordState, transcript_of
from voice_agent.session.call_limits import CallLimits
from voice_agent.session.keeping import Storage
from voice_agent.session.open import open_session
from voice_agent.session.resuming import Resumed, resume
from voice_agent.session.services import Services
from voice_agent.session.session import Session
from voice_agent.session.store.memory import MemoryStore
from voice_agent.session.store.protocol import Claim, Claimed, Outcome, Write
from voice_agent.session.store.writer import open_journal_writer
from voice_agent.settings.current import CurrentSettings
from voice_agent.settings.schema import SessionSettings, Settings
from voice_agent.speech.engine import HEARING_RATE, RecognitionRequest
from voice_agent.speech.scripted import ScriptedEngine
from voice_agent.transports.memory import MemoryCaller, open_memory_pair

OpenServices = Callable[..., AbstractAsyncContextManager[Services]]
Spoken = Callable[..., list[AudioFrame]]
CALLER = Identity(key_id="k7", tenant="t7", scopes=frozenset())
WINDOW_SECONDS = 60.0
FRAME_MS = 20


def loud_tenths(request: RecognitionRequest) -> str:
    """Say how long the utterance was, of the part that is not context."""
    said = request.samples[request.context_samples :]
    loud = np.abs(said).reshape(-1, 16).max(axis=1) > 0.01 if len(said) % 16 == 0 else np.abs(said) > 0.01
    seconds = np.count_nonzero(loud) * (16 if len(said) % 16 == 0 else 1) / HEARING_RATE
    return f"{round(seconds * 10)} tenths"


class WatchedStore(MemoryStore):
    """May be away, and yields often, so that cancellation finds it anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.is_away = False
        self.seconds = 0.0
        self.claims = 0

    async def write(self, batch: Sequence[Write]) -> Sequence[Outcome]:
        await self._pass_time()
        return await super().write(batch)

    async def claim(self, claim: Claim) -> Claimed:
        self.claims += 1
        await self._pass_time()
        claimed = await super().claim(claim)
        await self._pass_time()
        return claimed

    async def _pass_time(self) -> None:
        await trio.sleep(self.seconds)
        if self.is_away:
            raise StoreUnavailableError("away")


@attrs.define
class Node:
    """A server of its own, as far as a session knows."""

    services: Services
    storage: Storage

    async def resume(self, wish: Resume, identity: Identity = CALLER) -> Resumed:
        storage = self.storage
        return await resume(wish, identity, writer=storage.writer, node=storage.node, now=storage.now)


@attrs.define
class Line:
    """One connection of a caller; ``told`` is what came."""

    session: Session
    caller: MemoryCaller
    told: list[SessionEvent] = attrs.field(factory=list)
    began: trio.Event = attrs.field(factory=trio.Event)
    over: trio.Event = attrs.field(factory=trio.Event)

    @property
    def ready(self) -> SessionReady:
        return next(event for event in self.told if isinstance(event, SessionReady))

    @property
    def closed(self) -> SessionClosed:
        return next(event for event in self.told if isinstance(event, SessionClosed))

    @property
    def finals(self) -> list[str]:
        return [e.result.text for e in self.told if isinstance(e, Transcript) and e.result.is_final]

    def wish(self, **changes: Any) -> Resume:
        assert self.ready.resume is not None
        wish = Resume(
            session_id=self.ready.session_id,
            token=self.ready.resume.token,
            last_seq=max(event.seq for event in self.told),
        )
        return attrs.evolve(wish, **changes)

    async def speak(self, frames: list[AudioFrame], begin_ms: int = 0, end_ms: int | None = None) -> None:
        """Speak a part in real time; frames count from 0 on each connection."""
        begin = begin_ms // FRAME_MS
        for place, frame in enumerate(frames[begin : None if end_ms is None else end_ms // FRAME_MS]):
            await self.caller.send_audio(attrs.evolve(frame, position=place * frame.sample_count))
            await trio.sleep(frame.duration_seconds)

    async def listen(self) -> None:
        async for event in self.caller.events():
            self.told.append(event)
            self.began.set()
            if isinstance(event, SessionClosed):
                self.over.set()


@pytest.fixture
def store() -> WatchedStore:
    return WatchedStore()


@pytest.fixture
def open_node(
    store: WatchedStore, open_scripted_services: OpenServices
) -> Callable[..., AbstractAsyncContextManager[Node]]:
    """Open a node; all of a test share the store."""

    @asynccontextmanager
    async def opened(name: str = "n1", **session: Any) -> AsyncIterator[Node]:
        settings = Settings(session=SessionSettings(**{"resume_window_seconds": WINDOW_SECONDS, **session}))
        async with (
            open_journal_writer(store, max_waiting_bytes=1 << 20, drain_seconds=5) as writer,
            open_scripted_services(ScriptedEngine(loud_tenths), settings=settings) as plain,
        ):
            # The journal's time is the clock of the test.
            storage = Storage(writer=writer, node=name, budget_seconds=0.25, now=trio.current_time)
            yield Node(attrs.evolve(plain, storage=storage), storage)

    return opened


@asynccontextmanager
async def calling(node: Node, resumed: Resumed | None = None, **parts: Any) -> AsyncIterator[Line]:
    """Hold a connection; when the block is left it is lost, if it has not ended."""
    transport, caller = open_memory_pair()
    async with (
        trio.open_nursery() as nursery,
        open_session(node.services, transport, identity=CALLER, resumed=resumed, **parts) as session,
    ):
        line = Line(session, caller)
        nursery.start_soon(line.listen)
        await caller.send_command(Start(options=CallOptions(partials=False)))
        await line.began.wait()
        yield line
        caller.hang_up()


def journal(store: MemoryStore) -> list[Any]:
    [kept] = store._sessions.values()
    assert [entry.number for entry in kept.entries] == list(range(1, len(kept.entries) + 1))
    return kept.entries


async def test_a_call_goes_on_with_the_same_clock_numbers_and_words(
    autojump_clock: MockClock, open_node: Any, store: WatchedStore, spoken: Spoken
) -> None:
    """Lost in silence, resumed at another node: finals, times and numbers are those of one call."""
    frames = spoken(0.6, 1.0, 1.4, 1.0, 1.0)
    async with open_node("n1") as one, open_node("n2") as two:
        async with calling(one) as first:
            await first.speak(frames, 0, 2600)
        resumed = await two.resume(first.wish(audio_ms=2000))
        async with calling(two, resumed) as second:
            await second.speak(frames, 2000)
            await second.caller.send_command(Stop())
            await second.over.wait()
    assert (first.finals, second.finals) == (["10 tenths"], ["10 tenths"])
    assert second.session.id == first.session.id
    assert 2000 < second.ready.heard_ms <= 2600
    assert second.ready.position_ms == second.ready.heard_ms
    assert (
        second.ready.seq == max(event.seq for event in first.told if event.seq) + 1 + 1
    )  # the close took one
    assert second.ready.resume != first.ready.resume
    [start] = [event for event in second.told if isinstance(event, SpeechStarted)]
    assert start.utterance == 2
    assert 2.5 < start.start < 3.0
    assert second.closed.record.transcripts == 2
    assert second.closed.record.duration_seconds == pytest.approx(2.6 + 3.0, abs=0.2)
    kept = journal(store)
    assert transcript_of(kept) == ("10 tenths", "10 tenths")
    assert [entry.seq for entry in kept] == sorted(entry.seq for entry in kept)
    assert (await store.record(first.session.id)).state is RecordState.ENDED
    assert (await store.record(first.session.id)).node == "n2"


async def test_a_word_that_was_cut_is_heard_whole_and_once(
    autojump_clock: MockClock, open_node: Any, store: WatchedStore, spoken: Spoken
) -> None:
    """The half that the lost connection left is retracted; what is told again is the whole word."""
    frames = spoken(0.6, 2.0, 1.0)
    async with open_node() as node:
        async with calling(node) as first:
            await first.speak(frames, 0, 1600)
        assert transcript_of(journal(store)) == ("10 tenths",)
        async with calling(node, await node.resume(first.wish(audio_ms=0))) as second:
            await second.speak(frames)
            await second.caller.send_command(Stop())
            await second.over.wait()
    assert first.finals == []
    assert second.finals == ["20 tenths"]
    assert transcript_of(journal(store)) == ("20 tenths",)
    assert [entry.kind for entry in journal(store)].count(EntryKind.RETRACTED) == 1
    assert second.closed.record.transcripts == 1


async def test_the_half_stands_when_its_audio_does_not_come_again(
    autojump_clock: MockClock, open_node: Any, store: WatchedStore, spoken: Spoken
) -> None:
    """A caller who goes on with what comes next is told what was understood of the first half, and then the second."""
    frames = spoken(0.6, 2.0, 1.0)
    async with open_node() as node:
        async with calling(node) as first:
            await first.speak(frames, 0, 1600)
        async with calling(node, await node.resume(first.wish())) as second:
            await second.speak(frames, 1600)
            await second.caller.send_command(Stop())
            await second.over.wait()
    assert second.finals == ["10 tenths", "10 tenths"]
    assert transcript_of(journal(store)) == ("10 tenths", "10 tenths")


async def test_half_a_word_without_words_is_heard_again(
    autojump_clock: MockClock, open_node: Any, spoken: Spoken
) -> None:
    """What was too short to be a word before the cut is a part of one behind it."""
    frames = spoken(1.0, 1.0, 1.0)
    async with open_node() as node:
        node.services.engine.script = lambda request: (
            "" if len(request.samples) < HEARING_RATE // 2 else loud_tenths(request)
        )
        async with calling(node) as first:
            await first.speak(frames, 0, 1160)
        async with calling(node, await node.resume(first.wish(audio_ms=0))) as second:
            await second.speak(frames)
            await second.caller.send_command(Stop())
            await second.over.wait()
    assert second.finals == ["10 tenths"]


async def test_what_was_missed_is_told_again_with_its_numbers(
    autojump_clock: MockClock, open_node: Any, store: WatchedStore
) -> None:
    """Behind `ready`, in order, each with the number it had; and what a connection was told about itself is not."""
    async with open_node() as node:
        async with calling(node) as first:
            for text in ("one", "two", "three"):
                await first.caller.send_command(TypedText(text=text))
            await trio.sleep(0.1)
            await first.session.tell(Notice(code="draining", message="soon"))
            await first.session.tell(Notice(code="overflow", message="much", detail={"dropped_ms": 3}))
            await trio.sleep(1)
        one, two, three = (e for e in first.told if isinstance(e, Transcript))
        [_, overflow] = (e for e in first.told if isinstance(e, Notice))
        async with calling(node, await node.resume(first.wish(last_seq=one.seq))) as second:
            await second.caller.send_command(TypedText(text="four"))
            await trio.sleep(1)
    assert second.told[1:4] == [two, three, overflow]
    assert second.told[0].seq > overflow.seq
    assert second.told[4].seq == second.told[0].seq + 1
    assert transcript_of(journal(store)) == ("one", "two", "three", "four")


async def test_audio_from_further_on_leaves_a_gap(
    autojump_clock: MockClock, open_node: Any, spoken: Spoken
) -> None:
    """What was lost for good is silence: the words behind it stand where they were said."""
    frames = spoken(0.6, 1.0, 1.4, 1.0, 1.0)
    async with open_node() as node:
        async with calling(node) as first:
            await first.speak(frames, 0, 500)
        async with calling(node, await node.resume(first.wish(audio_ms=2600))) as second:
            await second.speak(frames, 2600)
            await second.caller.send_command(Stop())
            await second.over.wait()
    [final] = [e.result for e in second.told if isinstance(e, Transcript)]
    assert 2.6 < final.start < 3.0
    assert 3.9 < final.end < 4.2
    assert second.closed.position_ms == 5000


async def test_flush_means_the_audio_of_its_own_connection(
    autojump_clock: MockClock, open_node: Any, spoken: Spoken
) -> None:
    """A place that counts from the connection's first sample is the right one in the call."""
    frames = spoken(0.6, 1.0, 1.4, 1.0, 1.0)
    async with open_node() as node:
        async with calling(node) as first:
            await first.speak(frames, 0, 2600)
        async with calling(node, await node.resume(first.wish(audio_ms=2600))) as second:
            await second.caller.send_command(Flush(position_seconds=1.0))
            await second.speak(frames, 2600, 3600)
            await trio.sleep(0.1)
            assert second.finals == ["6 tenths"]


async def test_the_former_owner_is_fenced_and_writes_nothing(
    autojump_clock: MockClock, open_node: Any, store: WatchedStore, spoken: Spoken
) -> None:
    """Both nodes believe that the session is theirs: the former one closes its caller, and its words are nowhere."""
    async with open_node("n1") as one, open_node("n2") as two, calling(one) as first:
        await first.caller.send_command(TypedText(text="before"))
        await trio.sleep(0.1)
        async with calling(two, await two.resume(first.wish())) as second:
            await first.caller.send_command(TypedText(text="of the former owner"))
            await first.over.wait()
            await second.caller.send_command(TypedText(text="behind"))
            await trio.sleep(0.1)
    assert first.closed.record.reason is CloseReason.TAKEN_OVER
    assert not first.closed.is_resumable
    assert first.finals == ["before"]
    assert second.finals == ["behind"]
    assert transcript_of(journal(store)) == ("before", "behind")


async def test_a_silent_former_owner_finds_out_by_its_lease(
    autojump_clock: MockClock, open_node: Any, store: WatchedStore
) -> None:
    """Nobody says anything: within ten seconds it is closed all the same."""
    async with (
        open_node("n1") as one,
        open_node("n2") as two,
        calling(one) as first,
        calling(two, await two.resume(first.wish())),
    ):
        with trio.fail_after(10.5):
            await first.over.wait()
    assert first.closed.record.reason is CloseReason.TAKEN_OVER


async def test_an_owner_says_that_it_is_there(
    autojump_clock: MockClock, open_node: Any, store: WatchedStore, spoken: Spoken
) -> None:
    """In silence the lease is kept ahead of now, and what was heard is settled, without a word to the caller."""
    async with open_node() as node, calling(node) as line:
        for _ in range(4):
            await line.speak(spoken(12.0))
            record = await store.record(line.session.id)
            lease_left = record.lease_until - record.updated_at
            assert lease_left == pytest.approx(30)
        entries = journal(store)
        assert {entry.kind for entry in entries} == {EntryKind.HEARD}
        assert entries[-1].heard_ms > 36_000
        assert len(line.told) == 1


async def test_while_the_store_is_away_nothing_piles_up(
    autojump_clock: MockClock, open_node: Any, store: WatchedStore
) -> None:
    """Nobody says anything for ten minutes of an outage: at most a lease waits."""
    async with open_node(idle_timeout_seconds=2000) as node, calling(node) as line:
        store.is_away = True
        await trio.sleep(600)
        assert node.storage.writer.waiting <= 1
        store.is_away = False
        await trio.sleep(15)
        assert node.storage.writer.waiting == 0
        assert not line.session.is_ending


@pytest.mark.parametrize(
    ("end", "reason", "is_resumable"),
    [
        (lambda line: line.session.end(CloseReason.DRAIN), CloseReason.DRAIN, True),
        (lambda line: line.session.end(CloseReason.INTERNAL_ERROR), CloseReason.INTERNAL_ERROR, True),
        (lambda line: line.session.end(CloseReason.CANCELLED), CloseReason.CANCELLED, True),
        (lambda line: line.session.end(CloseReason.ENDED_BY_OPERATOR), CloseReason.ENDED_BY_OPERATOR, False),
        (lambda line: line.session.end(CloseReason.IDLE_TIMEOUT), CloseReason.IDLE_TIMEOUT, False),
        (lambda line: line.session.end(CloseReason.MAX_DURATION), CloseReason.MAX_DURATION, False),
        (lambda line: line.session.fail(BadAudioError("bad")), CloseReason.CALLER_ERROR, False),
    ],
)
async def test_which_ends_are_for_good(
    autojump_clock: MockClock,
    open_node: Any,
    store: WatchedStore,
    end: Callable[[Line], None],
    reason: CloseReason,
    is_resumable: bool,
) -> None:
    """What nobody asked for leaves the session to be resumed, and says so; what somebody decided ends it."""
    async with open_node() as node:
        async with calling(node) as line:
            end(line)
            await line.over.wait()
        record = await store.record(line.session.id)
        assert line.closed.record.reason is reason
        assert line.closed.is_resumable is is_resumable
        assert record.state is (RecordState.DETACHED if is_resumable else RecordState.ENDED)
        assert record.close_reason == reason.value
        if is_resumable:
            await node.resume(line.wish())
        else:
            with pytest.raises(ResumeRefusedError, match="has ended"):
                await node.resume(line.wish())


async def test_without_a_window_nothing_can_be_resumed(
    autojump_clock: MockClock, open_node: Any, store: WatchedStore
) -> None:
    """`ready` offers nothing, and a lost connection ends the session."""
    async with open_node(resume_window_seconds=0) as node, calling(node) as line:
        assert line.ready.resume is None
    assert (await store.record(line.session.id)).state is RecordState.ENDED


async def test_the_window_is_counted_from_the_lost_connection(
    autojump_clock: MockClock, open_node: Any
) -> None:
    """A second before its end the session goes on; a second behind it, it doesn't."""
    async with open_node() as node:
        for wait_seconds, is_late in ((WINDOW_SECONDS - 1, False), (WINDOW_SECONDS + 1, True)):
            async with calling(node) as line:
                await trio.sleep(0.1)
            left_at = (await node.storage.writer.store.record(line.session.id)).updated_at
            wish, later = line.wish(), lambda at=left_at, wait=wait_seconds: at + wait
            asking = resume(wish, CALLER, writer=node.storage.writer, node="n", now=later)
            if is_late:
                with pytest.raises(ResumeRefusedError, match="is over"):
                    await asking
            else:
                await asking


async def test_of_many_at_once_one_has_the_session(autojump_clock: MockClock, open_node: Any) -> None:
    """The same token from two nodes, ten times at once: one goes on, the others read that the token was used."""
    won: list[Resumed] = []
    refused: list[Exception] = []

    async def try_it(node: Node, wish: Resume) -> None:
        try:
            won.append(await node.resume(wish))
        except ResumeRefusedError as error:
            refused.append(error)

    async with open_node("n1") as one, open_node("n2") as two:
        async with calling(one) as line:
            await trio.sleep(0.1)
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(try_it, (one, two)[number % 2], line.wish())
    assert [resumed.record.epoch for resumed in won] == [2]
    assert {type(error) for error in refused} == {ResumeTokenUsedError}
    assert len(refused) == 9


async def test_cancelled_anywhere_the_token_still_holds(
    autojump_clock: MockClock, open_node: Any, store: WatchedStore
) -> None:
    """A resumption that is cancelled at any moment of it leaves the session as it was found: nobody's, and resumable."""
    store.seconds = 0.1
    finished = 0
    async with open_node() as node:
        async with calling(node) as line:
            await trio.sleep(1)
        wish = line.wish()
        for tenths in range(6):
            with trio.move_on_after(tenths / 10 + 0.05):
                resumed = await node.resume(wish)
                finished += 1
                async with calling(node, resumed) as line:
                    await trio.sleep(1)
                wish = line.wish()
            await trio.sleep(1)
            [kept] = store._sessions.values()
            assert kept.record.state is RecordState.DETACHED, tenths
        assert (await node.resume(wish)).record.state is RecordState.OPEN
    assert store.claims == 7
    assert finished >= 1


async def test_a_store_that_is_away_is_no_refusal_for_good(
    autojump_clock: MockClock, open_node: Any, store: WatchedStore
) -> None:
    """The caller is told to try again, and may: the token holds."""
    async with open_node() as node:
        async with calling(node) as line:
            await trio.sleep(0.1)
        store.is_away = True
        with pytest.raises(ResumeUnavailableError), trio.fail_after(10):
            await node.resume(line.wish())
        store.is_away = False
        assert (await node.resume(line.wish())).record.epoch == 2


async def test_both_tokens_hold_when_the_newer_one_may_not_have_come(
    autojump_clock: MockClock, open_node: Any, store: WatchedStore, spoken: Spoken
) -> None:
    """The second connection is lost at once: the caller may not have read its `ready`. Heard of for long enough, it has."""
    async with open_node() as node:
        async with calling(node) as first:
            await trio.sleep(0.1)
        async with calling(node, await node.resume(first.wish())):
            await trio.sleep(0.1)
        async with calling(node, await node.resume(first.wish())) as third:
            await third.speak(spoken(6.0))
        with pytest.raises(ResumeTokenUsedError):
            await node.resume(first.wish())
        assert (await node.resume(third.wish())).record.epoch == 4


async def test_a_call_whose_media_never_come_leaves_the_session_as_it_was(
    autojump_clock: MockClock, open_node: Any, store: WatchedStore
) -> None:
    """Taken over by WebRTC where UDP is blocked: the token with which it was taken over holds for another wire."""
    async with open_node() as node:
        async with calling(node) as first:
            await trio.sleep(0.1)
        async with calling(node, await node.resume(first.wish())) as second:
            second.session.fail(IceTimeoutError("no media"))
            await second.over.wait()
        assert second.closed.is_resumable
        assert (await node.resume(first.wish())).record.epoch == 3
        async with calling(node) as third:
            third.session.fail(IceTimeoutError("no media"))
            await third.over.wait()
        assert not third.closed.is_resumable


async def test_who_follows_a_session_does_not_see_its_token(
    autojump_clock: MockClock, open_node: Any
) -> None:
    """Followers of the events are others than the caller; and what was missed is not news to them."""
    async with open_node() as node:
        async with calling(node) as first:
            await first.caller.send_command(TypedText(text="one"))
            await trio.sleep(0.1)
        async with calling(node, await node.resume(first.wish(last_seq=0))) as second:
            await second.caller.send_command(TypedText(text="two"))
            await trio.sleep(0.1)
            seen = list(second.session.tap._recent)
    assert [type(event) for event in seen[:2]] == [SessionReady, Transcript]
    assert seen[0].resume is None
    assert [e.result.text for e in seen if isinstance(e, Transcript)] == ["two"]


async def test_a_lost_server_leaves_room_for_what_it_told(
    autojump_clock: MockClock, open_node: Any, store: WatchedStore
) -> None:
    """No last word in the journal: numbers go on far above, so that none is given twice."""
    async with open_node("n1") as one, open_node("n2") as two, calling(one) as first:
        await first.caller.send_command(TypedText(text="one"))
        await trio.sleep(0.1)
        resumed = await two.resume(first.wish(last_seq=0))
        assert resumed.last_seq >= 1000
        assert resumed.last_utterance > 1
        assert [event.seq for event in resumed.missed] == [2]
        first.session.give_way()


async def test_limits_count_on(autojump_clock: MockClock, open_node: Any, spoken: Spoken) -> None:
    """How long the call may last, and how much text it may have, is counted over its connections."""
    async with open_node(max_duration_seconds=10, idle_timeout_seconds=100) as node:
        limits = attrs.evolve(node.services.settings.limits, max_transcript_chars=100)
        current = CurrentSettings(attrs.evolve(node.services.settings, limits=limits))
        async with calling(node, limits=CallLimits(current)) as first:
            await first.caller.send_command(TypedText(text="x" * 60))
            await trio.sleep(6)
        resumed = attrs.evolve(await node.resume(first.wish()), age_seconds=6.0)
        async with calling(node, resumed, limits=CallLimits(current)) as second:
            began_at = trio.current_time()
            await second.over.wait()
            assert trio.current_time() - began_at == pytest.approx(4, abs=0.1)
        assert second.closed.record.reason is CloseReason.MAX_DURATION
        async with calling(node, resumed, limits=CallLimits(current)) as third:
            await third.caller.send_command(TypedText(text="x" * 50))
            await third.over.wait()
        assert third.closed.record.error_code == "transcript_too_large"


async def test_audio_that_was_heard_counts_for_no_limit(
    autojump_clock: MockClock, open_node: Any, spoken: Spoken
) -> None:
    """Sent again all at once, more than may come at once: what was heard is dropped, and the rest is all heard."""
    frames = spoken(40.0, 1.0, 8.0)
    async with open_node(max_waiting_audio_ms=2000) as node:
        limits = attrs.evolve(node.services.settings.limits, audio_burst_seconds=10, max_audio_rate=2.0)
        current = CurrentSettings(attrs.evolve(node.services.settings, limits=limits))
        async with calling(node, limits=CallLimits(current)) as first:
            await first.speak(frames, 0, 40_000)
        wish = first.wish(audio_ms=0)
        async with calling(node, await node.resume(wish), limits=CallLimits(current)) as second:
            for frame in frames:
                await second.caller.send_audio(frame)
            await second.caller.send_command(Stop())
            await second.over.wait()
    assert second.closed.record.reason is CloseReason.STOPPED
    assert second.closed.record.dropped_audio_ms == 0
    assert second.finals == ["10 tenths"]
