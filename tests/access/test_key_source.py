"""The key set, from a real HTTP server that is slow, down, full of garbage or changing its keys; and from a file."""

import gzip
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from joserfc.jwk import RSAKey
from trio.testing import MockClock

from voice_agent.access.authenticator import Credentials
from voice_agent.access.key_source import COOLDOWN_SECONDS, FETCH_SECONDS, MAX_DOCUMENT_BYTES
from voice_agent.core.errors import SettingsError, UnauthenticatedError
from voice_agent.core.identity import Identity
from voice_agent.core.request_errors import TokenKeysUnavailableError

Edge = Any
Issuer = Any
Claims = dict[str, Any]
Behaviour = Callable[[trio.SocketStream], Awaitable[None]]


def answer(body: bytes, status: str = "200 OK", **headers: str) -> Behaviour:
    """Answer like that."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *(f"{k}: {v}" for k, v in headers.items())]

    async def behave(stream: trio.SocketStream) -> None:
        await stream.send_all("\r\n".join([*lines, "", ""]).encode() + body)

    return behave


def publish(*keys: Any) -> Behaviour:
    """Answer with a set of these keys."""
    return answer(json.dumps({"keys": [key.as_dict(private=False) for key in keys]}).encode())


async def say_nothing(stream: trio.SocketStream) -> None:
    """Take the request, and leave it at that."""
    await trio.sleep_forever()


async def hang_up(stream: trio.SocketStream) -> None:
    """Close before an answer."""


async def pour(stream: trio.SocketStream) -> None:
    """Send a key set without an end."""
    await stream.send_all(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nC\r\n{"keys":[{},\r\n')
    while True:
        await stream.send_all(b"2000\r\n" + b"{}," * 2730 + b"{}" + b"\r\n")


async def drip(stream: trio.SocketStream) -> None:
    """Send the headers, then a byte now and then: each read succeeds, and none is the last."""
    await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while True:
        await stream.send_all(b" ")
        await trio.sleep(FETCH_SECONDS / 5)


@attrs.define
class Provider:
    """A server that publishes keys; ``behaviour`` says how."""

    behaviour: Behaviour = hang_up
    requests: list[bytes] = attrs.field(factory=list)
    closed: int = 0
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/keys"

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            received = b""
            while b"\r\n\r\n" not in received:
                received += await stream.receive_some()
            self.requests.append(received)
            try:
                await self.behaviour(stream)
            except trio.BrokenResourceError:
                self.closed += 1


async def until(condition: Callable[[], bool]) -> None:
    """Wait in real time for something that a real socket brings about; virtual time stands still meanwhile."""
    for _ in range(6000):
        if condition():
            return
        await trio.to_thread.run_sync(time.sleep, 0.005)
    raise AssertionError("it never happened")


@pytest.fixture
async def provider(nursery: trio.Nursery) -> Provider:
    made = Provider()
    listeners = await nursery.start(trio.serve_tcp, made.serve, 0)
    made.port = next(
        listener.socket.getsockname()[1]
        for listener in listeners
        if listener.socket.family == trio.socket.AF_INET
    )
    return made


@attrs.define
class Shown:
    """An authenticator that trusts a provider, and what happens in it."""

    edge: Edge
    authenticator: Any
    claims: Claims
    issuer: Issuer

    async def show(self, key: Any | None = None) -> Identity:
        """Show a token that is signed with the key."""
        token = self.issuer.sign("RS256", self.claims, key=key)
        identity: Identity = await self.authenticator.identify(Credentials(bearer=token), address="192.0.2.7")
        return identity

    async def is_refused(self, key: Any) -> bool:
        try:
            await self.show(key)
        except UnauthenticatedError:
            return True
        return False

    def fetches(self, outcome: str) -> float:
        counter = self.edge.metrics.key_set_fetches_total
        return float(counter.labels(outcome)._value.get())

    async def fetched(self, outcome: str, times: int) -> None:
        await until(lambda: self.fetches(outcome) >= times)
        assert self.fetches(outcome) == times


@pytest.fixture
def trust(edge: Edge, provider: Provider, claims: Claims, issuer: Issuer) -> Any:
    """Makes an authenticator that trusts the provider."""

    @asynccontextmanager
    async def trusting() -> AsyncIterator[Shown]:
        edge.configure(jwt_issuer=claims["iss"], jwt_audience=claims["aud"], jwks_url=provider.url)
        with trio.fail_after(1e6):
            async with edge.open() as authenticator:
                yield Shown(edge, authenticator, claims, issuer)

    return trusting


@pytest.fixture(scope="session")
def new_key() -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": "rsa-2"})


async def test_keys_are_fetched_once_and_kept(
    mock_clock: MockClock, provider: Provider, trust: Any, issuer: Issuer
) -> None:
    """The first token waits for the set, the next thousand don't ask for it."""
    provider.behaviour = publish(issuer.rsa)
    async with trust() as shown:
        for _ in range(20):
            assert (await shown.show()).key_id == "jwt:alice"
    assert len(provider.requests) == 1
    assert b"accept-encoding: identity" in provider.requests[0].lower()


async def test_a_new_key_is_found_when_a_token_names_it(
    mock_clock: MockClock, provider: Provider, trust: Any, issuer: Issuer, new_key: RSAKey
) -> None:
    """A provider that rotates its keys needs no restart here; the old key goes when the set is without it."""
    provider.behaviour = publish(issuer.rsa)
    async with trust() as shown:
        await shown.show()
        provider.behaviour = publish(new_key)
        mock_clock.jump(COOLDOWN_SECONDS)
        assert (await shown.show(new_key)).key_id == "jwt:alice"
        assert await shown.is_refused(issuer.rsa)
    assert len(provider.requests) == 2


async def test_invented_keys_don_t_make_us_ask_again_and_again(
    mock_clock: MockClock, provider: Provider, trust: Any, issuer: Issuer
) -> None:
    """Whatever callers name, the provider is asked once per cool-down, and nobody is kept waiting in between."""
    provider.behaviour = publish(issuer.rsa)
    async with trust() as shown:
        await shown.show()
        invented = [RSAKey.import_key(issuer.rsa.as_dict(private=True) | {"kid": f"k{n}"}) for n in range(30)]
        for _ in range(3):
            mock_clock.jump(COOLDOWN_SECONDS)
            for key in invented:
                assert await shown.is_refused(key)
    assert len(provider.requests) == 1 + 3


async def test_many_who_wait_share_one_fetch(
    mock_clock: MockClock, provider: Provider, trust: Any, issuer: Issuer
) -> None:
    """Fifty callers come while the set is under way: one request, fifty answers."""
    go = trio.Event()

    async def when_told(stream: trio.SocketStream) -> None:
        await go.wait()
        await publish(issuer.rsa)(stream)

    provider.behaviour = when_told
    names = []
    async with trust() as shown:

        async def call() -> None:
            names.append((await shown.show()).key_id)

        async with trio.open_nursery() as callers:
            for _ in range(50):
                callers.start_soon(call)
            await until(lambda: bool(provider.requests))
            go.set()
    assert names == ["jwt:alice"] * 50
    assert len(provider.requests) == 1


@pytest.mark.parametrize("outage", [hang_up, answer(b"oops", "500 Oops"), answer(b"<html>", "200 OK")])
async def test_an_outage_leaves_the_keys_in_force(
    mock_clock: MockClock, provider: Provider, trust: Any, issuer: Issuer, new_key: RSAKey, outage: Behaviour
) -> None:
    """Old tokens go on working, unknown keys are refused; when the provider is back, new keys are found."""
    provider.behaviour = publish(issuer.rsa)
    async with trust() as shown:
        await shown.show()
        provider.behaviour = outage
        for times in (1, 2, 3):
            mock_clock.jump(COOLDOWN_SECONDS)
            assert await shown.is_refused(new_key)
            await shown.fetched("failed", times)
            assert (await shown.show()).key_id == "jwt:alice"
        provider.behaviour = publish(issuer.rsa, new_key)
        mock_clock.jump(COOLDOWN_SECONDS)
        assert (await shown.show(new_key)).key_id == "jwt:alice"


async def test_an_old_set_is_fetched_again_by_itself(
    mock_clock: MockClock, provider: Provider, trust: Any, issuer: Issuer
) -> None:
    """A key that its provider took back stops working within ``jwks_max_age_seconds``."""
    provider.behaviour = publish(issuer.rsa)
    async with trust() as shown:
        await shown.fetched("ok", 1)
        mock_clock.jump(3599)
        await shown.fetched("ok", 1)
        mock_clock.jump(1)
        await shown.fetched("ok", 2)


async def test_after_failures_it_is_tried_again_at_growing_intervals(
    mock_clock: MockClock, provider: Provider, trust: Any, issuer: Issuer
) -> None:
    """20, 40, 80, 160, then every 300 s, also when nobody calls."""
    async with trust() as shown:
        await shown.fetched("failed", 1)
        for times, seconds in enumerate((20, 40, 80, 160, 300, 300), 2):
            mock_clock.jump(seconds - 1)
            await shown.fetched("failed", times - 1)
            mock_clock.jump(1)
            await shown.fetched("failed", times)
        provider.behaviour = publish(issuer.rsa)
        mock_clock.jump(300)
        await shown.fetched("ok", 1)
        await shown.show()


async def test_while_no_set_has_ever_come_nobody_is_called_wrong(
    mock_clock: MockClock, provider: Provider, trust: Any, issuer: Issuer
) -> None:
    """503, at once between the attempts; a client keeps its token then. It is no failure of the address."""
    async with trust() as shown:
        await shown.fetched("failed", 1)
        for _ in range(5):
            with pytest.raises(TokenKeysUnavailableError):
                await shown.show()
        assert len(provider.requests) == 1
        provider.behaviour = publish(issuer.rsa)
        mock_clock.jump(COOLDOWN_SECONDS)
        await shown.show()
    assert shown.edge.limiter.counts == {}


@pytest.mark.parametrize("behaviour", [say_nothing, drip])
async def test_a_slow_provider_holds_a_caller_up_for_seconds_and_no_more(
    mock_clock: MockClock, provider: Provider, trust: Any, issuer: Issuer, behaviour: Behaviour
) -> None:
    """The whole fetch has one deadline, however the bytes come; afterwards it is tried again."""
    provider.behaviour = behaviour
    ended = trio.Event()
    async with trust() as shown:

        async def call() -> None:
            with pytest.raises(TokenKeysUnavailableError):
                await shown.show()
            ended.set()

        async with trio.open_nursery() as callers:
            callers.start_soon(call)
            await until(lambda: bool(provider.requests))
            for _ in range(5):
                # Real time for the bytes to arrive; each of them is progress for the client's own timeouts.
                await trio.to_thread.run_sync(time.sleep, 0.05)
                mock_clock.jump(FETCH_SECONDS / 5)
            await until(ended.is_set)
        await shown.fetched("failed", 1)
        provider.behaviour = publish(issuer.rsa)
        mock_clock.jump(COOLDOWN_SECONDS)
        assert (await shown.show()).key_id == "jwt:alice"


async def test_a_set_without_end_is_cut_off(mock_clock: MockClock, provider: Provider, trust: Any) -> None:
    """Reading stops at the limit, and the connection is closed."""
    provider.behaviour = pour
    async with trust() as shown:
        await shown.fetched("failed", 1)
        await until(lambda: provider.closed == 1)


def bomb(issuer: Issuer) -> bytes:
    return gzip.compress(json.dumps(issuer.key_set()).encode() + b" " * 10_000_000)


@pytest.mark.parametrize(
    "kind", ["redirect", "created", "empty", "gzip", "bomb", "large", "bad chunks", "no http", "headers"]
)
async def test_what_is_no_plain_answer_is_no_key_set(
    mock_clock: MockClock, provider: Provider, trust: Any, issuer: Issuer, kind: str
) -> None:
    """Redirects are not followed, nothing is unpacked, and nonsense on the wire is a failed fetch."""
    keys = json.dumps(issuer.key_set()).encode()

    async def no_http(stream: trio.SocketStream) -> None:
        await stream.send_all(b"\x16\x03\x01" + os.urandom(2000))

    async def bad_chunks(stream: trio.SocketStream) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n" + keys)

    async def headers(stream: trio.SocketStream) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\n" + b"X-Long: y\r\n" * 200_000)

    provider.behaviour = {
        "redirect": answer(b"", "302 Found", Location=provider.url + "/elsewhere"),
        "created": answer(keys, "201 Created"),
        "empty": answer(b""),
        "gzip": answer(gzip.compress(keys), **{"Content-Encoding": "gzip"}),
        "bomb": answer(bomb(issuer), **{"Content-Encoding": "gzip"}),
        "large": answer(keys + b" " * MAX_DOCUMENT_BYTES),
        "bad chunks": bad_chunks,
        "no http": no_http,
        "headers": headers,
    }[kind]
    async with trust() as shown:
        await shown.fetched("failed", 1)
        with pytest.raises(TokenKeysUnavailableError):
            await shown.show()
    assert len(provider.requests) == 1


async def test_a_provider_that_can_t_be_reached_is_a_failed_fetch(
    mock_clock: MockClock, edge: Edge, provider: Provider, trust: Any
) -> None:
    """Nobody listens at the address."""
    provider.port = 9
    async with trust() as shown:
        await shown.fetched("failed", 1)


async def test_what_is_plain_goes_through_no_proxy(
    mock_clock: MockClock, provider: Provider, trust: Any, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``http://`` is allowed because it stays on the machine; a proxy in the environment must not take it elsewhere."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    provider.behaviour = publish(issuer.rsa)
    async with trust() as shown:
        assert (await shown.show()).key_id == "jwt:alice"


async def test_a_defect_in_a_parser_is_a_failed_fetch(
    mock_clock: MockClock, provider: Provider, trust: Any, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a provider's document sets off, the server and the keys that it has go on."""
    provider.behaviour = publish(issuer.rsa)
    async with trust() as shown:
        await shown.show()
        monkeypatch.setattr("voice_agent.access.key_source.parse_key_set", lambda _document: 1 // 0)
        mock_clock.jump(3600)
        await shown.fetched("failed", 1)
        assert (await shown.show()).key_id == "jwt:alice"


async def test_certificates_that_can_t_be_read_are_a_failed_fetch(
    mock_clock: MockClock, provider: Provider, trust: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``SSL_CERT_FILE`` may name a file that is gone."""
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/certificates.pem")
    async with trust() as shown:
        await shown.fetched("failed", 1)


async def test_another_address_in_the_settings_is_asked_at_once(
    mock_clock: MockClock, provider: Provider, trust: Any, issuer: Issuer, new_key: RSAKey
) -> None:
    """The operator's change waits for no cool-down, and keys from the former address are worth nothing any more."""
    provider.behaviour = publish(issuer.rsa)
    async with trust() as shown:
        await shown.show()
        provider.behaviour = publish(new_key)
        shown.edge.configure(jwks_url=provider.url + "/new")
        assert (await shown.show(new_key)).key_id == "jwt:alice"
        assert await shown.is_refused(issuer.rsa)
        provider.behaviour = hang_up
        shown.edge.configure(jwks_url=provider.url + "/newer")
        with pytest.raises(TokenKeysUnavailableError):
            await shown.show(new_key)
    assert len(provider.requests) == 3


async def test_the_server_stops_while_a_fetch_hangs(
    mock_clock: MockClock, provider: Provider, trust: Any
) -> None:
    """Leaving the block cancels the fetch; what the block raised comes out as it was raised."""
    provider.behaviour = say_nothing

    async def stop_meanwhile() -> None:
        async with trust():
            await until(lambda: bool(provider.requests))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await stop_meanwhile()


async def test_a_caller_who_hangs_up_leaves_the_fetch_to_the_others(
    mock_clock: MockClock, provider: Provider, trust: Any, issuer: Issuer
) -> None:
    """The task that fetches is nobody's; one waiter's cancellation is not another's."""
    go = trio.Event()

    async def when_told(stream: trio.SocketStream) -> None:
        await go.wait()
        await publish(issuer.rsa)(stream)

    provider.behaviour = when_told
    names = []
    async with trust() as shown:

        async def call() -> None:
            names.append((await shown.show()).key_id)

        async with trio.open_nursery() as second, trio.open_nursery() as first:
            first.start_soon(call)
            second.start_soon(call)
            await until(lambda: bool(provider.requests))
            first.cancel_scope.cancel()
            go.set()
    assert names == ["jwt:alice"]


@pytest.fixture
def key_file(edge: Edge, issuer: Issuer, claims: Claims, tmp_path: Path) -> Path:
    """A file with the issuer's keys, configured."""
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps(issuer.key_set("RS")))
    edge.configure(jwt_issuer=claims["iss"], jwt_audience=claims["aud"], jwks_file=path)
    return path


async def test_a_file_is_read_again_when_a_token_names_a_new_key(
    mock_clock: MockClock, edge: Edge, key_file: Path, issuer: Issuer, claims: Claims, new_key: RSAKey
) -> None:
    """Also when it is a link that is swapped, as Kubernetes does."""
    first = key_file.rename(key_file.with_name("first.json"))
    key_file.symlink_to(first)
    async with edge.open() as authenticator:
        shown = Shown(edge, authenticator, claims, issuer)
        await shown.show()
        await shown.fetched("ok", 1)
        second = key_file.with_name("second.json")
        second.write_text(json.dumps({"keys": [new_key.as_dict(private=False)]}))
        swapped = key_file.with_name("swapped")
        swapped.symlink_to(second)
        swapped.replace(key_file)
        mock_clock.jump(COOLDOWN_SECONDS)
        await shown.show(new_key)
        assert await shown.is_refused(issuer.rsa)


def missing(path: Path) -> None:
    path.unlink()


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def garbage(path: Path) -> None:
    path.write_text("-----BEGIN PUBLIC KEY-----")


def open_to_all(path: Path) -> None:
    path.chmod(0o646)


def giant(path: Path) -> None:
    with path.open("a") as file:
        file.write(" " * MAX_DOCUMENT_BYTES)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (missing, "can't be read: No such file"),
        (folder, "can't be read: Is a directory"),
        (garbage, "is not a JSON object"),
        (open_to_all, r"can be written by every user; .*chmod o-w"),
        (giant, "is larger than"),
    ],
)
async def test_a_file_that_is_wrong_at_the_start_stops_it(
    edge: Edge, key_file: Path, spoil: Callable[[Path], None], words: str
) -> None:
    """It is at hand, so that there is nothing to wait for; the error names the setting, the path and the reason."""
    spoil(key_file)
    with pytest.raises(SettingsError, match=words) as caught:
        async with edge.open():
            pass
    assert caught.value.field == "access.jwks_file"
    assert str(key_file) in caught.value.message


async def test_a_file_that_becomes_wrong_later_leaves_its_keys_in_force(
    mock_clock: MockClock, edge: Edge, key_file: Path, issuer: Issuer, claims: Claims, new_key: RSAKey
) -> None:
    """A half-written file is no outage."""
    async with edge.open() as authenticator:
        shown = Shown(edge, authenticator, claims, issuer)
        await shown.fetched("ok", 1)
        key_file.write_text('{"keys": [')
        mock_clock.jump(COOLDOWN_SECONDS)
        assert await shown.is_refused(new_key)
        assert (await shown.show()).key_id == "jwt:alice"
