"""The authenticator: keys and tickets are judged by the settings in force, and no answer tells what was wrong."""

import hashlib
import hmac
import json
import re
from typing import Any

import pytest

from voice_agent.access.authentication import REFUSAL, ServerAuthenticator, open_authenticator
from voice_agent.access.authenticator import Credentials
from voice_agent.access.keys import new_key
from voice_agent.core.errors import SettingsError, UnauthenticatedError
from voice_agent.core.identity import Identity, Quotas, Scope
from voice_agent.core.request_errors import TooManyFailuresError
from voice_agent.observability.metrics import Metrics
from voice_agent.settings.current import CurrentSettings
from voice_agent.settings.schema import AccessSettings, Settings

Edge = Any


async def refused(authenticator: ServerAuthenticator, address: str = "192.0.2.7", **shown: str) -> None:
    """The credentials are refused in the words that are the same for everybody."""
    with pytest.raises(UnauthenticatedError) as caught:
        await authenticator.identify(Credentials(**shown), address=address)
    assert caught.value.message == REFUSAL
    assert caught.value.__cause__ is None
    assert caught.value.field is None


def another_secret(key: str) -> str:
    """The same id, and a secret that differs in one digit."""
    return key[:-1] + ("0" if key[-1] != "0" else "1")


async def test_a_key_says_who_calls(edge: Edge) -> None:
    """As bearer or as X-API-Key, a key is somebody with scopes, tenant and quotas of their own."""
    key = edge.add_key("kiosk", ', scopes = ["call", "observe"], tenant = "acme", quotas = { max_calls = 2 }')
    expected = Identity(
        key_id="kiosk",
        tenant="acme",
        scopes=frozenset({Scope.CALL, Scope.OBSERVE}),
        quotas=Quotas(max_calls=2),
    )
    async with edge.open() as authenticator:
        assert await authenticator.identify(Credentials(bearer=key), address=edge.address) == expected
        assert await authenticator.identify(Credentials(api_key=key), address=edge.address) == expected
    assert edge.failures() == {}


def test_a_new_key_is_long_recognisable_and_different_each_time() -> None:
    """256 random bits behind a prefix that scanners for leaked secrets can look for; nothing shows it by accident."""
    keys = [new_key() for _ in range(50)]
    assert all(re.fullmatch(r"va_[0-9a-f]{10}_[0-9a-f]{64}", key.text) for key in keys)
    assert len({key.text for key in keys}) == len({key.key_id for key in keys}) == 50
    assert keys[0].text not in repr(keys[0])


async def test_what_is_wrong_with_a_key_is_told_to_nobody_but_the_metrics(edge: Edge) -> None:
    """Unknown, wrong, expired and malformed keys get one answer; the counter tells them apart."""
    key = edge.add_key("kiosk")
    old = edge.add_key("old", ", expires = 2026-01-01")
    wrong = [
        "",
        " ",
        "va_",
        "va_kiosk",
        "va_kiosk_",
        f"{key} ",
        f" {key}",
        key[:-1],
        key + "0",
        key.upper(),
        "é" * 9,
    ]
    async with edge.open() as authenticator:
        for shown in wrong:
            await refused(authenticator, api_key=shown)
        await refused(authenticator, api_key=another_secret(key))
        await refused(authenticator, api_key=new_key("nobody").text)
        await refused(authenticator, api_key=old)
        await refused(authenticator, bearer=key, api_key=key)
    assert edge.failures() == {
        "key_malformed": len(wrong),
        "key_wrong": 1,
        "key_unknown": 1,
        "key_expired": 1,
        "several": 1,
    }


async def test_an_unknown_key_costs_what_a_wrong_one_costs(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One hash and one comparison in constant time, whether there is such a key, its secret is wrong or it is right."""
    key, compared, hashed = edge.add_key("kiosk"), [], []
    compare, sha256 = hmac.compare_digest, hashlib.sha256

    def comparing(left: bytes, right: bytes) -> bool:
        compared.append((len(left), len(right)))
        return compare(left, right)

    def hashing(text: bytes) -> Any:
        hashed.append(len(text))
        return sha256(text)

    unknown = new_key("kiosc").text
    async with edge.open() as authenticator:
        monkeypatch.setattr("voice_agent.access.keys.hmac.compare_digest", comparing)
        monkeypatch.setattr("voice_agent.access.keys.hashlib.sha256", hashing)
        await authenticator.identify(Credentials(api_key=key), address=edge.address)
        await refused(authenticator, api_key=another_secret(key))
        await refused(authenticator, api_key=unknown)
    assert compared == [(32, 32)] * 3
    assert hashed == [len(key)] * 3


async def test_a_key_expires_at_its_moment(edge: Edge) -> None:
    """Until the second before it is good, from the moment itself on it is not."""
    key = edge.add_key("kiosk", ", expires = 2030-01-31")
    async with edge.open() as authenticator:
        edge.now = 1_896_048_000 - 1
        identity = await authenticator.identify(Credentials(api_key=key), address=edge.address)
        assert identity.expires_at == 1_896_048_000
        edge.now += 1
        await refused(authenticator, api_key=key)


async def test_keys_follow_the_settings_without_a_restart(edge: Edge) -> None:
    """A key that was taken away is refused at its next use, and a new one is good at once, while the old ones stay."""
    old = edge.add_key("old")
    async with edge.open() as authenticator:
        await authenticator.identify(Credentials(api_key=old), address=edge.address)
        new = edge.add_key("new")
        for key in (old, new):
            await authenticator.identify(Credentials(api_key=key), address=edge.address)
        edge.remove_key("old")
        await refused(authenticator, api_key=old)
        await authenticator.identify(Credentials(api_key=new), address=edge.address)


async def test_failures_block_an_address_and_nobody_else(edge: Edge) -> None:
    """After too many failures even a right key has to wait, so that nothing can be tried; other addresses go on."""
    key = edge.add_key("kiosk")
    edge.limiter.allowed = 3
    async with edge.open() as authenticator:
        for _ in range(3):
            await refused(authenticator, api_key="va_guess")
        with pytest.raises(TooManyFailuresError) as caught:
            await authenticator.identify(Credentials(api_key=key), address=edge.address)
        assert caught.value.retry_after_seconds == 7
        await authenticator.identify(Credentials(api_key=key), address="192.0.2.8")
    assert edge.failures()["blocked"] == 1
    assert edge.limiter.counts == {edge.address: 3}, "a blocked request is not a failure more"


async def test_a_failure_is_audited_without_a_secret(edge: Edge, caplog: pytest.LogCaptureFixture) -> None:
    """The audit says which key was claimed, from where and why it was refused, and nothing that opens anything."""
    key = edge.add_key("kiosk")
    wrong = another_secret(key)
    async with edge.open() as authenticator:
        await refused(authenticator, api_key=wrong)
        await refused(authenticator, ticket="no-such-ticket")
    lines = [json.loads(line.getMessage()) for line in caplog.records if line.name == "voice_agent.audit"]
    assert [(line["actor"], line["reason"], line["address"]) for line in lines] == [
        ("kiosk", "key_wrong", edge.address),
        ("unknown", "ticket_unknown", edge.address),
    ]
    assert wrong.rpartition("_")[2] not in str(lines)
    assert "no-such-ticket" not in str(lines)


async def test_showing_nothing_is_no_guess(edge: Edge) -> None:
    """A request without credentials is asked for some; it counts as nobody's failure."""
    async with edge.open() as authenticator:
        with pytest.raises(UnauthenticatedError):
            await authenticator.identify(Credentials(), address=edge.address)
    assert edge.limiter.counts == {}
    assert edge.failures() == {}


async def test_wrong_keys_stop_the_start_of_an_embedding_program_too() -> None:
    """Settings that were made by hand have passed no check; the authenticator says what is wrong."""
    current = CurrentSettings(Settings(access=AccessSettings(keys="kiosk = 1")))
    with pytest.raises(SettingsError, match="line 1, key kiosk"):
        async with open_authenticator(current, metrics=Metrics()):
            pass


def test_credentials_never_show_themselves() -> None:
    """A repr goes into logs and traces."""
    assert "secret" not in repr(Credentials(bearer="secret-1", api_key="secret-2", ticket="secret-3"))
