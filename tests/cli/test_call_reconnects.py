"""A call whose connection is lost, against servers that are played by the test, in memory and on virtual time."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from random import Random
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from trio.abc import Clock
from trio_websocket import WebSocketConnection, wrap_client_stream, wrap_server_stream

from voice_agent.cli.call_audio import AudioMessage, AudioSource, MemorySource
from voice_agent.cli.call_client import CallResult, ClientOptions, call_server
from voice_agent.cli.call_result import ConnectionNews, Reconnecting, Resumed
from voice_agent.core.errors import ServerUnreachableError
from voice_agent.core.formats import AudioFormat

STEP = 0.02


def pieces(count: int) -> list[AudioMessage]:
    """Messages of 20 ms; the bytes of each tell its number."""
    return [AudioMessage(b"%6d" % i, (i + 1) * STEP) for i in range(count)]


@attrs.frozen
class Microphone:
    """Gives a message each 20 ms, whoever listens."""

    count: int
    audio_format: AudioFormat = attrs.field(factory=AudioFormat)
    is_live: bool = True

    @asynccontextmanager
    async def open(self) -> AsyncIterator[AsyncIterator[AudioMessage]]:
        async with aclosing(self._iterate()) as messages:
            yield messages

    async def _iterate(self) -> AsyncGenerator[AudioMessage, None]:
        began_at = trio.current_time()
        for message in pieces(self.count):
            await trio.sleep_until(began_at + message.end_seconds)
            yield message


@attrs.define
class Server:
    """The servers' side of one session, over its connections: what came, placed by position as the protocol has it."""

    connection: WebSocketConnection
    session: "Session"
    start: dict[str, Any] = attrs.field(factory=dict)
    place: int = 0
    """Number of the message that is due, in steps of the call's audio."""
    begins_at: int = 0

    async def say(self, kind: str, *, seq: int | None = None, **fields: Any) -> None:
        if seq is None:
            self.session.seq += 1
            seq = self.session.seq
        message = {"type": kind, "seq": seq, "position_ms": self.session.heard * 20} | fields
        await self.connection.send_message(json.dumps(message))

    async def ready(self, **fields: Any) -> None:
        """Read ``start``, answer ``ready``; take the place that the caller says."""
        self.start = json.loads(await self.connection.get_message())
        self.session.starts.append(self.start)
        if (resume := self.start.get("resume")) is not None:
            self.place = self.begins_at = resume["audio_ms"] // 20
            fields = {"resumed": True, "heard_ms": self.session.settled * 20} | fields
        self.session.tokens += 1
        offer = {"token": f"token-{self.session.tokens}", "window_seconds": 60}
        await self.say("ready", **({"session": "abc", "protocol": 1, "resume": offer, "limits": {}} | fields))

    async def hear(self, count: int = 10**9) -> None:
        """Hear so many messages, or up to ``stop``; answer pings."""
        while count:
            data = await self.connection.get_message()
            if isinstance(data, bytes):
                self.session.hear(self.place, int(data))
                self.place += 1
                count -= 1
            elif json.loads(data)["type"] == "ping":
                await self.say("pong", id=None)
            else:
                assert json.loads(data) == {"type": "stop"}
                self.session.was_stopped = True
                return

    async def final(self, text: str, end: int, *, seq: int | None = None, **fields: Any) -> None:
        """Tell a final that ends with message ``end``; everything before it is settled."""
        if fields.get("stored") is not False:
            self.session.settled = end
        await self.say(
            "final", seq=seq, utterance=end, text=text, start=0.0, end=end * STEP, stable=text, **fields
        )

    async def close(self, reason: str = "stopped", code: int = 1000, **fields: Any) -> None:
        await self.say("closed", reason=reason, duration_seconds=1.0, **fields)
        await self.connection.aclose(code, reason)

    async def vanish(self) -> None:
        """Be killed: no close frame."""
        await self.connection._stream.aclose()


@attrs.define
class Session:
    """What the servers know together."""

    seq: int = 0
    tokens: int = 0
    heard: int = 0
    settled: int = 0
    was_stopped: bool = False
    starts: list[dict[str, Any]] = attrs.field(factory=list)
    audio: dict[int, int] = attrs.field(factory=dict)
    """What was heard, by its place."""

    def hear(self, place: int, number: int) -> None:
        self.audio.setdefault(place, number)
        assert self.audio[place] == number, "the same place holds another sound"
        self.heard = max(self.heard, place + 1)

    def resumes(self) -> list[dict[str, Any]]:
        return [start["resume"] for start in self.starts if "resume" in start]


Play = Callable[[Server], Awaitable[None]]


@attrs.define
class Called:
    """A call, and everything around it."""

    result: CallResult
    session: Session
    news: list[ConnectionNews]
    told: list[dict[str, Any]]
    urls: list[str]

    @property
    def lost(self) -> list[Reconnecting]:
        return [it for it in self.news if isinstance(it, Reconnecting)]

    @property
    def resumed(self) -> list[Resumed]:
        return [it for it in self.news if isinstance(it, Resumed)]


async def call(
    source: AudioSource,
    *plays: Play | ServerUnreachableError,
    urls: tuple[str, ...] = ("ws://one",),
    options: ClientOptions | None = None,
    hang_up: trio.Event | None = None,
) -> Called:
    """Make a call; each connection is played by the next of ``plays``, or fails so; after the last nobody answers."""
    session = Session()
    news: list[ConnectionNews] = []
    told: list[dict[str, Any]] = []
    asked: list[str] = []
    turns = iter(plays)

    async def connect(
        url: str, use: Callable[[WebSocketConnection], Awaitable[None]], timeout_seconds: float
    ) -> None:
        assert timeout_seconds > 0
        asked.append(url)
        turn = next(turns, ServerUnreachableError("nobody is there"))
        if isinstance(turn, ServerUnreachableError):
            raise turn
        client_stream, server_stream = trio.testing.memory_stream_pair()

        async def serve() -> None:
            async with trio.open_nursery() as serving:
                request = await wrap_server_stream(serving, server_stream)
                await turn(Server(await request.accept(), session))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            await use(await wrap_client_stream(nursery, client_stream, "test", "/v1/ws"))
            nursery.cancel_scope.cancel()

    result = await call_server(
        list(urls),
        source,
        options=options,
        on_message=lambda received: told.append(received.message),
        on_news=news.append,
        hang_up=hang_up,
        connect=connect,
        chance=Random(3),
    )
    return Called(result, session, news, told, asked)


def file(count: int) -> MemorySource:
    return MemorySource(AudioFormat(), pieces(count))


async def finish(server: Server) -> None:
    """Resume, hear the rest, and end well."""
    await server.ready()
    await server.hear()
    await server.final("the rest", server.place)
    await server.close()


async def die_after_100(server: Server) -> None:
    """Tell a final for the first 40 messages, hear 100, and be killed."""
    await server.ready()
    await server.hear(60)
    await server.final("the first", 40)
    await server.hear(40)
    await server.vanish()


async def test_a_call_goes_on_where_it_was(autojump_clock: Clock) -> None:
    """A server is killed in mid-sentence: the whole file is heard, each sample in its place, each final told once."""
    called = await call(file(200), die_after_100, finish)
    result, session = called.result, called.session
    assert (result.failure_code, result.failure) == (None, None)
    assert session.audio == {i: i for i in range(200)}
    assert session.was_stopped
    assert [final.text for final in result.finals] == ["the first", "the rest"]
    assert session.resumes() == [{"session": "abc", "token": "token-1", "last_seq": 2, "audio_ms": 0}]
    assert (result.resumes, result.lost_seconds) == (1, 0)
    assert result.audio_seconds == pytest.approx(4.0)
    assert [it.attempt for it in called.lost] == [1]
    assert called.lost[0].words.startswith(
        "connection lost (the server went away without a close record: close code 1006); trying again in 0."
    )
    assert called.resumed[0].words == f"resumed after {called.resumed[0].away_seconds:.1f} s, nothing lost"
    assert called.resumed[0].away_seconds == pytest.approx(called.lost[0].wait_seconds)


async def test_what_is_settled_is_not_sent_again(autojump_clock: Clock) -> None:
    """A final at 4 s lets go of what lies a second and more before its end."""

    async def die(server: Server) -> None:
        await server.ready()
        await server.say("speech_started", utterance=1, start=0.1)
        await server.hear(220)
        await server.final("the first", 200)
        await server.hear(80)
        await server.vanish()

    called = await call(file(400), die, finish)
    assert called.result.failure_code is None
    # Since then 80 more were heard in silence; of those the last one and a half seconds may hold a beginning.
    assert called.session.resumes()[0]["audio_ms"] in range(3_000, 4_520, 20)
    assert called.session.audio == {i: i for i in range(400)}
    assert called.resumed[0].lost_seconds == 0


async def test_silence_that_the_server_had_settled_and_not_kept_is_no_loss(autojump_clock: Clock) -> None:
    """How far it had heard is kept now and then only; what the caller let go of meanwhile was settled all the same."""

    async def die(server: Server) -> None:
        await server.ready()
        for _ in range(4):
            await server.hear(100)
            await server.say("pong", id=None)
        await server.hear(20)
        await server.vanish()

    async def know_less(server: Server) -> None:
        await server.ready(heard_ms=0)
        await server.hear()
        await server.close()

    called = await call(file(600), die, know_less)
    assert called.session.resumes()[0]["audio_ms"] > 6_000
    assert (called.result.failure_code, called.result.lost_seconds) == (None, 0)
    assert called.resumed[0].words.endswith("nothing lost")


async def test_a_file_waits_and_keeps_its_pace(autojump_clock: Clock) -> None:
    """Nothing is read on meanwhile; what was late comes at once, then each message at the speed of sound."""
    times: list[float] = []

    async def time(server: Server) -> None:
        await server.ready()
        for _ in range(200):
            await server.hear(1)
            times.append(trio.current_time())
        await server.hear()
        await server.close()

    called = await call(file(200), die_after_100, ServerUnreachableError("still booting"), time)
    assert called.result.failure_code is None
    assert times[100] - times[0] < 0.3  # at the pace that limits allow
    fresh = times[100:]
    assert [t - fresh[0] for t in fresh] == pytest.approx([k * STEP for k in range(100)], abs=STEP)


async def test_who_speaks_is_recorded_while_there_is_no_connection(autojump_clock: Clock) -> None:
    """A microphone does not stop for a network: what was said meanwhile is heard later, in its place."""
    failures = [ServerUnreachableError("no route")] * 3
    called = await call(Microphone(800), die_after_100, *failures, finish)
    assert called.result.failure_code is None
    assert called.session.audio == {i: i for i in range(800)}
    assert called.resumed[0].resent_seconds > called.resumed[0].away_seconds > 1


async def test_of_a_long_outage_the_last_thirty_seconds_are_kept_and_the_loss_is_told(
    autojump_clock: Clock,
) -> None:
    """The server hears silence in place of the rest, and the clock stays the call's."""

    async def slow(server: Server) -> None:
        # Six seconds more are spoken before the answer, and none of them is lost.
        await trio.sleep(6)
        await finish(server)

    failures = [ServerUnreachableError("no route")] * 12
    called = await call(Microphone(6_000), die_after_100, *failures, slow)
    resumed = called.resumed[0]
    assert called.result.failure_code is None
    assert resumed.away_seconds > 36
    connected_at = 2.0 + resumed.away_seconds - 6
    assert resumed.lost_seconds == pytest.approx(connected_at - 30 - 0.8, abs=0.05)
    assert f"{resumed.lost_seconds:.1f} s of sound lost" in resumed.words
    assert called.result.lost_seconds == resumed.lost_seconds
    missing = sorted(set(range(6_000)) - set(called.session.audio))
    assert missing == list(range(100, called.session.resumes()[0]["audio_ms"] // 20))
    assert all(place == number for place, number in called.session.audio.items())


@pytest.mark.parametrize("code", [1001, 1011, 1012])
async def test_each_way_to_lose_a_server_is_followed_by_another_attempt(
    autojump_clock: Clock, code: int
) -> None:
    """Going away, a defect, a restart: told by close code, without a record."""

    async def leave(server: Server) -> None:
        await server.ready()
        await server.hear(10)
        await server.connection.aclose(code)

    called = await call(file(50), leave, finish)
    assert called.result.failure_code is None
    assert called.result.resumes == 1
    assert called.session.audio == {i: i for i in range(50)}


@pytest.mark.parametrize(("reason", "code"), [("drain", 1012), ("internal_error", 1011)])
async def test_a_close_record_that_says_so_is_followed_by_another_attempt(
    autojump_clock: Clock, reason: str, code: int
) -> None:
    """A server that drains, or has a defect, hands the call on; its record is not the call's."""

    async def leave(server: Server) -> None:
        await server.ready()
        await server.hear(10)
        if reason == "internal_error":
            await server.say("error", code="internal_error", message="oops", fatal=True, field=None)
        await server.close(reason, code, resumable=True)

    called = await call(file(50), leave, finish)
    assert called.result.failure_code is None
    assert called.result.closed is not None
    assert called.result.closed["reason"] == "stopped"
    assert called.session.audio == {i: i for i in range(50)}


@pytest.mark.parametrize(
    ("reason", "code"),
    [("caller_error", 4400), ("taken_over", 4409), ("idle_timeout", 4408), ("drain", 1012)],
)
async def test_a_call_that_the_server_means_to_end_is_over(
    autojump_clock: Clock, reason: str, code: int
) -> None:
    """Errors of ours, a session that goes on elsewhere, a server that keeps nothing."""

    async def leave(server: Server) -> None:
        await server.ready()
        await server.hear(10)
        await server.close(reason, code)

    called = await call(file(50), leave, finish)
    assert (called.result.failure_code, called.news) == (reason, [])


async def test_a_close_code_of_ours_without_a_record_is_the_end(autojump_clock: Clock) -> None:
    """4409 may come alone."""

    async def leave(server: Server) -> None:
        await server.ready()
        await server.hear(10)
        await server.connection.aclose(4409, "taken_over")

    called = await call(file(50), leave, finish)
    assert (called.result.failure_code, called.news) == ("connection_lost", [])


async def test_without_an_offer_or_with_no_resume_a_lost_connection_is_the_end(autojump_clock: Clock) -> None:
    """A server that keeps nothing can't go on; a caller may not want to."""

    async def die(server: Server) -> None:
        await server.ready(resume=None)
        await server.hear(10)
        await server.vanish()

    called = await call(file(50), die, finish)
    assert (called.result.failure_code, called.news) == ("connection_lost", [])
    called = await call(file(200), die_after_100, finish, options=ClientOptions(resumes=False))
    assert (called.result.failure_code, called.news) == ("connection_lost", [])


async def test_attempts_end_with_the_window(autojump_clock: Clock) -> None:
    """A server that is gone is left after the minute for which it would keep the session; each wait was told."""
    began_at = trio.current_time()
    called = await call(file(200), die_after_100)
    assert called.result.failure_code == "connection_lost"
    assert called.result.failure == "nobody is there"
    assert [it.attempt for it in called.lost] == list(range(1, len(called.lost) + 1))
    assert len(called.lost) > 8
    assert all(0 <= it.wait_seconds <= 8 for it in called.lost)
    assert 1.9 + 52 < trio.current_time() - began_at < 2.1 + 60
    assert [final.text for final in called.result.finals] == ["the first"]


async def test_several_servers_are_tried_in_turn(autojump_clock: Clock) -> None:
    """The next one when one is lost, round and round."""
    failures = [ServerUnreachableError("down")] * 2
    called = await call(
        file(200), die_after_100, *failures, finish, urls=("ws://one", "ws://two", "ws://three")
    )
    assert called.urls == ["ws://one", "ws://two", "ws://three", "ws://one"]
    assert called.resumed[0].url == "ws://one"
    assert called.session.audio == {i: i for i in range(200)}


async def test_a_call_begins_with_the_first_server_that_takes_it(autojump_clock: Clock) -> None:
    """Each is asked once; when none takes it, the last one's reason is told."""
    down = ServerUnreachableError("down")
    called = await call(file(20), down, finish, urls=("ws://one", "ws://two"))
    assert (called.urls, called.result.failure_code) == (["ws://one", "ws://two"], None)
    with pytest.raises(ServerUnreachableError, match="so is two"):
        await call(file(20), down, ServerUnreachableError("so is two"), urls=("ws://one", "ws://two"))


async def test_a_server_that_is_silent_is_asked_and_left(autojump_clock: Clock) -> None:
    """A network that swallows everything: noticed within sixteen seconds, although each send succeeds."""
    asked: list[str] = []

    async def fall_silent(server: Server) -> None:
        await server.ready()
        while True:
            data = await server.connection.get_message()
            if isinstance(data, str):
                asked.append(json.loads(data)["type"])
            elif server.place < 100:
                server.session.hear(server.place, int(data))
                server.place += 1

    called = await call(Microphone(1_500), fall_silent, finish)
    assert asked[:2] == ["ping", "ping"]
    assert called.result.failure_code is None
    assert "has said nothing for 12 s" in called.lost[0].reason
    assert called.session.audio == {i: i for i in range(1_500)}


async def test_missed_messages_are_told_and_repeated_ones_are_not(autojump_clock: Clock) -> None:
    """A final that never arrived comes with its own number; one that did is not told twice."""

    async def die(server: Server) -> None:
        await server.ready()
        await server.hear(60)
        await server.final("arrived", 20)
        server.session.seq += 1  # "missed" was kept, and never sent
        await server.vanish()

    async def replay(server: Server) -> None:
        await server.ready()
        await server.final("arrived", 20, seq=2)
        await server.final("missed", 40, seq=3)
        await server.hear()
        await server.close()

    called = await call(file(100), die, replay)
    assert [final.text for final in called.result.finals] == ["arrived", "missed"]
    assert called.session.resumes()[0]["last_seq"] == 2


async def test_a_connection_that_breaks_among_the_missed_messages_loses_none(autojump_clock: Clock) -> None:
    """The second attempt asks for what is still missing, with the newest token."""

    async def die(server: Server) -> None:
        await server.ready()
        await server.hear(60)
        server.session.seq += 2
        await server.vanish()

    async def break_off(server: Server) -> None:
        await server.ready()
        await server.final("one", 20, seq=2)
        await server.vanish()

    async def replay(server: Server) -> None:
        await server.ready()
        await server.final("two", 40, seq=3)
        await server.hear()
        await server.close()

    called = await call(file(100), die, break_off, replay)
    assert [(r["token"], r["last_seq"]) for r in called.session.resumes()] == [("token-1", 1), ("token-2", 2)]
    assert [final.text for final in called.result.finals] == ["one", "two"]
    assert called.result.resumes == 2


async def test_a_final_that_was_told_and_not_kept_is_heard_again_and_told_once(autojump_clock: Clock) -> None:
    """The server had no store and died: the words are in its record in the end, and once on the caller's screen."""

    async def die(server: Server) -> None:
        await server.ready()
        await server.hear(100)
        await server.final("unkept", 80, stored=False)
        await server.vanish()

    async def hear_again(server: Server) -> None:
        await server.ready()
        await server.hear(80)
        await server.final("unkept!", 80)
        await server.hear()
        await server.final("and more", 200)
        await server.close()

    called = await call(file(200), die, hear_again)
    assert [final.text for final in called.result.finals] == ["unkept", "and more"]


@pytest.mark.parametrize("code", ["resume_unknown", "resume_token_used", "resume_expired", "resume_foreign"])
async def test_a_session_that_can_not_be_resumed_is_told_with_its_code(
    autojump_clock: Clock, code: str
) -> None:
    """There is nothing to try again."""

    async def refuse(server: Server) -> None:
        await server.connection.get_message()
        await server.say("error", code=code, message="no", fatal=True, field=None)
        await server.close("caller_error", 4404)

    called = await call(file(200), die_after_100, refuse, finish)
    assert (called.result.failure_code, called.result.failure) == (code, "no")
    assert len(called.lost) == 1


async def test_a_store_that_is_away_is_tried_again(autojump_clock: Clock) -> None:
    """`resume_unavailable` is the one refusal that may be another answer in a moment."""

    async def refuse(server: Server) -> None:
        await server.connection.get_message()
        await server.say("error", code="resume_unavailable", message="no store", fatal=True, field=None)
        await server.close("caller_error", 1013)

    called = await call(file(200), die_after_100, refuse, refuse, finish)
    assert called.result.failure_code is None
    assert [it.attempt for it in called.lost] == [1, 2, 3]
    assert called.lost[1].reason == "no store"


async def test_a_server_that_begins_another_session_is_not_taken_for_this_one(autojump_clock: Clock) -> None:
    """Its audio would be heard as if nothing had been before."""

    async def begin_anew(server: Server) -> None:
        await server.ready(resumed=False)
        await trio.sleep_forever()

    called = await call(file(200), die_after_100, begin_anew)
    assert called.result.failure_code == "resume_refused"


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_refusal_that_stays_one_ends_the_attempts(autojump_clock: Clock, status: int) -> None:
    """A key that was taken back: the server is not asked until it locks the address out."""
    called = await call(file(200), die_after_100, ServerUnreachableError("no", http_status=status), finish)
    assert (called.result.failure_code, called.result.failure) == ("server_unreachable", "no")
    called = await call(file(200), die_after_100, ServerUnreachableError("full", http_status=503), finish)
    assert called.result.failure_code is None


async def test_ctrl_c_without_a_connection_ends_the_call_at_once(autojump_clock: Clock) -> None:
    """While waiting, and while connecting: there is nobody to say `stop` to."""
    hang_up = trio.Event()

    async def press() -> None:
        await trio.sleep(20)
        hang_up.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(press)
        called = await call(file(200), die_after_100, hang_up=hang_up)
        assert trio.current_time() == pytest.approx(20)
        nursery.cancel_scope.cancel()
    assert called.result.was_hung_up


async def test_ctrl_c_while_connecting_ends_the_call_at_once(autojump_clock: Clock) -> None:
    """A network that swallows the first packet would hold it up for ten seconds."""
    hang_up = trio.Event()

    async def swallow(_url: str, _use: Any, timeout_seconds: float) -> None:
        hang_up.set()
        await trio.sleep(timeout_seconds)
        raise ServerUnreachableError("no answer")

    result = await call_server("ws://one", file(10), hang_up=hang_up, connect=swallow)
    assert trio.current_time() == 0
    assert (result.was_hung_up, result.failure_code) == (True, None)


async def test_ctrl_c_on_a_resumed_connection_says_stop_and_is_not_resumed(autojump_clock: Clock) -> None:
    """The last words are waited for; a connection that is lost then stays lost."""
    hang_up = trio.Event()

    async def go_on(server: Server) -> None:
        await server.ready()
        await server.hear(120)
        hang_up.set()
        await server.hear()
        await server.vanish()

    called = await call(file(1_000), die_after_100, go_on, finish, hang_up=hang_up)
    assert called.session.was_stopped
    assert called.result.resumes == 1
    assert called.result.failure_code == "connection_lost"


async def test_a_server_that_dies_before_the_last_words_tells_them_elsewhere(autojump_clock: Clock) -> None:
    """The file is at its end, `stop` was sent, no record came: the end is said again."""

    async def die(server: Server) -> None:
        await server.ready()
        await server.hear()
        await server.vanish()

    called = await call(file(50), die, finish)
    assert [final.text for final in called.result.finals] == ["the rest"]
    assert called.result.failure_code is None


async def test_a_connection_that_never_holds_is_one_outage(autojump_clock: Clock) -> None:
    """Waits grow and the window runs from the first loss; a connection of ten seconds and more ends it."""

    async def drop_at_once(server: Server) -> None:
        await server.ready()
        await server.vanish()

    called = await call(file(200), die_after_100, *[drop_at_once] * 100)
    assert called.result.failure_code == "connection_lost"
    assert 8 < called.result.resumes < 40
    assert called.lost[-1].attempt == len(called.lost)

    async def hold(server: Server) -> None:
        await server.ready()
        await server.hear(700)
        await server.vanish()

    called = await call(file(2_100), die_after_100, hold, hold, finish)
    assert called.result.failure_code is None
    assert [it.attempt for it in called.lost] == [1, 1, 1]


@pytest.mark.parametrize("after_seconds", [2.05, 4.0, 20.0])
async def test_cancelling_a_call_without_a_connection_ends_it_at_once(
    autojump_clock: Clock, after_seconds: float
) -> None:
    """Whoever owns the scope owns the call, its waits included."""
    with trio.move_on_after(after_seconds) as scope:
        await call(file(200), die_after_100)
    assert scope.cancelled_caught
    assert trio.current_time() == pytest.approx(after_seconds)


async def test_at_full_speed_a_call_is_resumed_too(autojump_clock: Clock) -> None:
    """With the limits counted from where the connection begins."""

    async def die(server: Server) -> None:
        await server.ready()
        await server.hear(200)
        await server.final("the first", 150)
        await server.vanish()

    called = await call(file(2_000), die, finish, options=ClientOptions(speed=0))
    assert called.result.failure_code is None
    assert called.session.audio == {i: i for i in range(2_000)}
