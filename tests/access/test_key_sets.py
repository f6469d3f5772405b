"""Key sets as documents: which keys are taken, which are left out, and that no document breaks the reader."""

import json
from contextlib import suppress
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from joserfc.util import base64_to_int, int_to_base64

from voice_agent.access.jwks import MAX_KEYS, KeySetError, parse_key_set

Issuer = Any


def document(*members: Any) -> bytes:
    return json.dumps({"keys": list(members)}).encode()


@pytest.fixture
def public(issuer: Issuer) -> dict[str, dict[str, Any]]:
    """The public keys, by type."""
    return {key["kty"]: key for key in issuer.key_set()["keys"]}


def test_each_key_verifies_the_algorithms_of_its_type(issuer: Issuer) -> None:
    """A key is found by its name for these, and for no other algorithm."""
    ring = parse_key_set(json.dumps(issuer.key_set()).encode())
    found = {
        (key.kid, name)
        for key in ring.keys
        for name in ("HS256", "RS256", "ES256", "EdDSA", "Ed25519", "none")
        if ring.find(key.kid, name)
    }
    assert found == {("rsa-1", "RS256"), ("ec-1", "ES256"), ("okp-1", "EdDSA"), ("okp-1", "Ed25519")}
    assert ring.left_out == 0


def test_a_key_may_say_which_algorithm_it_is_for(public: dict[str, Any]) -> None:
    """Its own ``alg`` narrows what it verifies, and never widens it."""
    ring = parse_key_set(document(public["OKP"] | {"alg": "EdDSA"}, public["RSA"] | {"alg": "RS256"}))
    assert ring.find("okp-1", "EdDSA")
    assert ring.find("okp-1", "Ed25519") is None
    for alg in ("HS256", "RS512", "PS256", "none", "", 1, ["RS256"], {}):
        assert (
            parse_key_set(document(public["RSA"] | {"alg": alg}, public["EC"])).find("rsa-1", "RS256") is None
        )


def left_out(public: dict[str, Any]) -> list[Any]:
    rsa, ec, okp = public["RSA"], public["EC"], public["OKP"]
    return [
        OctKey.generate_key(256, {"kid": "oct"}).as_dict(private=True),
        RSAKey.generate_key(2048).as_dict(private=True),
        ECKey.generate_key("P-256").as_dict(private=True),
        ECKey.generate_key("P-384").as_dict(private=False),
        ECKey.generate_key("P-521").as_dict(private=False),
        OKPKey.generate_key("Ed448").as_dict(private=False),
        OKPKey.generate_key("X25519").as_dict(private=False),
        rsa | {"use": "enc"},
        rsa | {"use": "other"},
        rsa | {"key_ops": ["encrypt"]},
        rsa | {"key_ops": [["verify"]]},
        rsa | {"n": "AQAB"},
        rsa | {"n": ""},
        rsa | {"n": 5},
        rsa | {"n": rsa["n"] * 5},
        rsa | {"n": "!" * 342},
        rsa | {"e": rsa["n"]},
        rsa | {"e": int_to_base64(base64_to_int(rsa["n"]) - 2)},
        rsa | {"e": ""},
        rsa | {"e": None},
        rsa | {"e": "AQ"},
        {"kty": "RSA", "kid": "half"},
        ec | {"x": ec["y"], "y": ec["x"]},
        ec | {"x": ""},
        ec | {"crv": ["P-256"]},
        okp | {"x": "AAAA"},
        okp | {"x": 1},
        ec | {"kid": 1},
        ec | {"kid": ["ec-1"]},
        ec | {"kty": "ec"},
        {"kty": ["RSA"]},
        {},
        None,
        1,
        "RSA",
        [rsa],
    ]


def test_a_key_that_must_not_be_used_is_left_out_and_the_others_stay(public: dict[str, Any]) -> None:
    """Symmetric, private, short, giant, of another use or curve, off its curve, or no key at all."""
    for member in left_out(public):
        ring = parse_key_set(document(member, public["OKP"]))
        assert [key.kid for key in ring.keys] == ["okp-1"], member
        assert ring.left_out == 1


def test_a_short_rsa_key_is_left_out() -> None:
    """RFC 7518, section 3.3: 2048 bits or more."""
    weak = generate_private_key(65537, 1024).public_key()  # noqa: S505 - it is what must not be taken
    short = RSAKey(weak, weak, None).as_dict(private=False)
    with pytest.raises(KeySetError, match="has no key"):
        parse_key_set(document(short))


def test_two_keys_of_one_name_are_no_key(public: dict[str, Any]) -> None:
    """Which of them was meant can't be told; one of another type doesn't disturb."""
    other = ECKey.generate_key("P-256", {"kid": "ec-1"}).as_dict(private=False)
    ring = parse_key_set(document(public["EC"], other, public["RSA"] | {"kid": "ec-1"}))
    assert ring.find("ec-1", "ES256") is None
    assert ring.find("ec-1", "RS256")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "is not a JSON object"),
        (b"<html>", "is not a JSON object"),
        (b"\xff", "is not a JSON object"),
        (b"[]", "is not a JSON object"),
        (b"null", "is not a JSON object"),
        (b'{"keys":[],"keys":[]}', "is not a JSON object"),
        (b'{"keys":' + b"[" * 100_000, "is not a JSON object"),
        (b"{}", 'has no list "keys"'),
        (b'{"keys":{}}', 'has no list "keys"'),
        (b'{"keys":null}', 'has no list "keys"'),
        (b'{"keys":[]}', "has no key"),
        (b'{"keys":[' + b",".join([b"{}"] * (MAX_KEYS + 1)) + b"]}", "has more than 100 keys"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_what_is_no_key_set_is_refused_whole(text: bytes, words: str) -> None:
    """The keys that came before stay in force then."""
    with pytest.raises(KeySetError, match=words):
        parse_key_set(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
NAMES = ("kty", "crv", "x", "y", "n", "e", "use", "key_ops", "alg", "kid", "x5c", "x5t", "d", "k")


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_document_is_a_key_set_or_a_key_set_error(issuer: Issuer, data: st.DataObject) -> None:
    """Real keys with members replaced by anything: nothing but :class:`KeySetError` comes out of the reader."""
    members = [
        key | data.draw(st.dictionaries(st.sampled_from(NAMES), JSON, max_size=3))
        for key in issuer.key_set()["keys"]
    ]
    with suppress(KeySetError):
        parse_key_set(json.dumps({"keys": members}).encode())
    with pytest.raises(KeySetError):
        parse_key_set(data.draw(st.binary()))
