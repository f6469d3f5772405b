"""Tokens: each algorithm that is meant verifies, and whatever an attacker writes into a token is refused alike."""

import hashlib
import hmac
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from voice_agent.access.authentication import REFUSAL, ServerAuthenticator
from voice_agent.access.authenticator import Credentials
from voice_agent.access.rejection import RejectedError
from voice_agent.access.tokens import _REGISTRY
from voice_agent.core.errors import UnauthenticatedError
from voice_agent.core.identity import Hours, Identity, Quotas, Scope

Edge = Any
Issuer = Any
Claims = dict[str, Any]


async def identify(authenticator: ServerAuthenticator, token: str) -> Identity:
    return await authenticator.identify(Credentials(bearer=token), address="192.0.2.7")


async def refused(edge: Edge, token: str) -> str:
    """Show a token that must be refused, in the words that are the same for all; return the reason that is counted."""
    async with edge.open() as authenticator:
        before = edge.failures()
        with pytest.raises(UnauthenticatedError) as caught:
            await identify(authenticator, token)
    assert caught.value.message == REFUSAL
    assert caught.value.__cause__ is None
    (reason,) = [kind for kind, count in edge.failures().items() if count != before.get(kind, 0)]
    return reason


@pytest.mark.parametrize("algorithm", ["HS256", "RS256", "ES256", "EdDSA", "Ed25519"])
async def test_a_token_of_each_algorithm_says_who_calls(
    trusting: Edge, issuer: Issuer, claims: Claims, algorithm: str
) -> None:
    """Scopes, tenant, quotas and expiry come from its claims; the subject is marked as a token's."""
    claims |= {
        "scope": "openid call observe",
        "tenant": "acme",
        "quotas": {"max_calls": 3, "retention_hours": 0},
    }
    async with trusting.open() as authenticator:
        assert await identify(authenticator, issuer.sign(algorithm, claims)) == Identity(
            key_id="jwt:alice",
            tenant="acme",
            scopes=frozenset({Scope.CALL, Scope.OBSERVE}),
            quotas=Quotas(max_calls=3, retention_hours=Hours(0)),
            expires_at=claims["exp"] + 30,
        )


async def test_a_token_without_scopes_may_do_nothing(trusting: Edge, issuer: Issuer, claims: Claims) -> None:
    """Least is the default; a tenant of its own is not."""
    del claims["scope"]
    async with trusting.open() as authenticator:
        identity = await identify(authenticator, issuer.sign("ES256", claims))
    assert (identity.scopes, identity.tenant, identity.quotas) == (frozenset(), "default", Quotas())


@pytest.mark.parametrize("header", [{"typ": "at+jwt"}, {"typ": "AT+JWT"}, {"x-own": 1}])
async def test_headers_that_harm_nobody(
    trusting: Edge, issuer: Issuer, claims: Claims, header: dict[str, Any]
) -> None:
    """Access tokens have a type of their own (RFC 9068); unknown parameters are ignored (RFC 7515, section 4)."""
    token = issuer.sign("RS256", claims, **header)
    async with trusting.open() as authenticator:
        assert (await identify(authenticator, token)).key_id == "jwt:alice"


async def test_a_token_may_leave_out_its_key_where_one_fits(
    trusting: Edge, issuer: Issuer, claims: Claims, tmp_path: Path
) -> None:
    """One key of the type: it is that. Two: the token has to say which."""
    unnamed = RSAKey.import_key(issuer.rsa.as_dict(private=True))
    del unnamed._dict_value["kid"]
    token = issuer.sign("RS256", claims, key=unnamed)
    async with trusting.open() as authenticator:
        assert (await identify(authenticator, token)).key_id == "jwt:alice"
    other = RSAKey.generate_key(2048, {"kid": "rsa-2"})
    keys = [*issuer.key_set()["keys"], other.as_dict(private=False)]
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": keys}))
    assert await refused(trusting, token) == "jwt_key_unknown"


async def test_claims_of_a_token_follow_the_settings_in_force(
    trusting: Edge, issuer: Issuer, claims: Claims
) -> None:
    """Another audience, secret or tenant claim takes effect at the next use, without a restart."""
    token = issuer.sign("HS256", claims | {"org": "acme"})
    async with trusting.open() as authenticator:
        trusting.configure(jwt_tenant_claim="org")
        assert (await identify(authenticator, token)).tenant == "acme"
        for change in ({"jwt_audience": "others"}, {"jwt_secret": "another secret of more than 32 bytes"}):
            before = dict(trusting.access)
            trusting.configure(**change)
            with pytest.raises(UnauthenticatedError):
                await identify(authenticator, token)
            trusting.configure(**before)
            await identify(authenticator, token)


async def test_a_token_in_its_last_seconds_still_gets_a_ticket(
    trusting: Edge, issuer: Issuer, claims: Claims
) -> None:
    """Who is let in by the leeway is given something that works."""
    async with trusting.open() as authenticator:
        who = await identify(authenticator, issuer.sign("ES256", claims | {"exp": int(trusting.now) - 20}))
        ticket = authenticator.issue_ticket(who, address="a")
        trusting.now += 9
        await authenticator.identify(Credentials(ticket=ticket), address="a")


async def test_a_ticket_for_a_token(trusting: Edge, issuer: Issuer, claims: Claims) -> None:
    """It lasts no longer than the token, and ends with the trust in tokens."""
    claims["exp"] = int(trusting.now) + 10
    trusting.configure(jwt_leeway_seconds=0)
    async with trusting.open() as authenticator:
        who = await identify(authenticator, issuer.sign("ES256", claims))
        early, late, distrusted = (authenticator.issue_ticket(who, address="a") for _ in range(3))
        holder = await authenticator.identify(Credentials(ticket=early), address="a")
        assert (holder.key_id, holder.scopes) == ("jwt:alice", {Scope.CALL})
        everything = dict(trusting.access)
        trusting.access = {}
        trusting.configure()
        with pytest.raises(UnauthenticatedError):
            await authenticator.identify(Credentials(ticket=distrusted), address="a")
        trusting.configure(**everything)
        trusting.now += 10
        with pytest.raises(UnauthenticatedError):
            await authenticator.identify(Credentials(ticket=late), address="a")
    assert trusting.failures() == {"ticket_orphaned": 1, "ticket_expired": 1}


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", "", " ", "HS384", "HS512", "RS384", "RS1", "PS256",
                                  "ES384", "ES256K", "Ed448", "RSA-OAEP", "dir", "HS256 "])  # fmt: skip
@pytest.mark.parametrize("signature", ["", "AAAA"])
async def test_only_the_algorithms_of_the_allow_list(
    trusting: Edge, claims: Claims, encoded: Any, name: str, signature: str
) -> None:
    """The word "none" in any spelling, other strengths, other kinds: no algorithm here."""
    token = f"{encoded({'alg': name, 'typ': 'JWT'})}.{encoded(claims)}.{signature}"
    assert await refused(trusting, token) == "jwt_algorithm"


def test_the_library_itself_is_told_the_allow_list() -> None:
    """A second wall, should the header ever be read in two ways."""
    for name in ("none", "HS512", "RS512", "nonsense"):
        with pytest.raises(RejectedError):
            _REGISTRY.get_alg(name)


@pytest.mark.parametrize("name", [None, 1, True, ["RS256"], {"RS256": 1}, float("nan")])
async def test_an_algorithm_that_is_no_text(trusting: Edge, claims: Claims, encoded: Any, name: Any) -> None:
    """A list of algorithms is not a choice of them."""
    token = f"{encoded({'alg': name})}.{encoded(claims)}.AAAA"
    assert await refused(trusting, token) in ("jwt_algorithm", "jwt_malformed")


async def test_a_public_key_is_no_shared_secret(
    trusting: Edge, issuer: Issuer, claims: Claims, encoded: Any
) -> None:
    """HS256 under the text of a public key, in any form, is the attack that confused many libraries."""
    for key in (issuer.rsa, issuer.ec, issuer.okp):
        jwk = key.as_dict(private=False)
        secrets = [key.as_pem(), key.as_der(), json.dumps(jwk).encode(), key.as_pem().strip(), b""]
        secrets += [str(value).encode() for value in jwk.values()]
        for secret in secrets:
            for header in ({"alg": "HS256", "kid": key.kid}, {"alg": "HS256"}, {"alg": "HS256", "jwk": jwk}):
                start = f"{encoded(header)}.{encoded(claims)}"
                forged = hmac.new(secret, start.encode(), hashlib.sha256).digest()
                assert await refused(trusting, f"{start}.{encoded(forged)}") == "jwt_signature"


@pytest.mark.parametrize(
    ("algorithm", "kid"), [("RS256", "ec-1"), ("ES256", "rsa-1"), ("EdDSA", "ec-1"), ("RS256", "okp-1")]
)
async def test_a_key_verifies_the_algorithms_of_its_own_type(
    trusting: Edge, issuer: Issuer, claims: Claims, algorithm: str, kid: str
) -> None:
    """The header names a key of the set and an algorithm of the list that don't belong together."""
    assert await refused(trusting, issuer.sign(algorithm, claims, kid=kid)) == "jwt_key_unknown"


async def test_without_a_shared_secret_hs256_is_nobody_s(
    edge: Edge, issuer: Issuer, claims: Claims, tmp_path: Path
) -> None:
    """An empty secret signs nothing, and where no token is taken at all the answer is the same."""
    empty = OctKey(b"", b"", None)
    with pytest.raises(ValueError, match="must not be empty"):
        issuer.sign("HS256", claims, key=empty)
    assert await refused(edge, issuer.sign("HS256", claims)) == "jwt_signature"
    assert await refused(edge, issuer.sign("RS256", claims)) == "jwt_key_unknown"


@pytest.mark.parametrize("kid", ["../../../dev/null", "/dev/null", "rsa-1\u0000", "RSA-1", "rsa-1 ", "' OR 1=1 --",
                                 "http://127.0.0.1/jwks", "x" * 4000, "\ud800", "é"])  # fmt: skip
async def test_a_key_s_name_is_looked_up_and_nothing_else(
    trusting: Edge, issuer: Issuer, claims: Claims, kid: str
) -> None:
    """It is no path, no query and no address."""
    assert await refused(trusting, issuer.sign("RS256", claims, kid=kid)) in (
        "jwt_key_unknown",
        "jwt_malformed",
    )


@pytest.mark.parametrize("name", ["jku", "x5u"])
async def test_an_address_in_a_token_is_not_fetched(
    trusting: Edge, issuer: Issuer, claims: Claims, name: str
) -> None:
    """Keys come from the settings; nobody connects to where a token points."""
    mine = RSAKey.generate_key(2048, {"kid": "mine"})
    with_address = issuer.sign("RS256", claims, key=mine, **{name: "http://127.0.0.1:9/jwks.json"})
    assert await refused(trusting, with_address) == "jwt_key_unknown"
    claimed = issuer.sign("RS256", claims, key=mine, kid="rsa-1", **{name: "http://127.0.0.1:9/jwks.json"})
    assert await refused(trusting, claimed) == "jwt_signature"
    honest = issuer.sign("RS256", claims, **{name: "https://id.example.org/jwks.json"})
    async with trusting.open() as authenticator:
        assert (await identify(authenticator, honest)).key_id == "jwt:alice"


async def test_a_key_in_a_token_is_not_believed(trusting: Edge, issuer: Issuer, claims: Claims) -> None:
    """A token that brings its own key (``jwk``, ``x5c``) vouches for itself."""
    for mine, algorithm in ((RSAKey.generate_key(2048), "RS256"), (ECKey.generate_key("P-256"), "ES256")):
        public = mine.as_dict(private=False)
        for header in ({"jwk": public}, {"jwk": public, "kid": "rsa-1"}, {"x5c": ["MIIB"], "kid": "ec-1"}):
            token = issuer.sign(algorithm, claims, key=mine, **header)
            assert await refused(trusting, token) in ("jwt_key_unknown", "jwt_signature")


@pytest.mark.parametrize(
    "header",
    [
        {"crit": ["exp"], "exp": 1},
        {"crit": ["b64"], "b64": True},
        {"crit": ["b64"], "b64": False},
        {"crit": []},
        {"crit": "exp"},
        {"b64": False},
        {"typ": "JWE"},
        {"typ": "dpop+jwt"},
        {"typ": "secevent+jwt"},
        {"typ": 1},
        {"kid": 1},
        {"kid": None},
        {"kid": ["rsa-1"]},
        {"deep": json.loads("[" * 40 + "]" * 40)},
    ],
    ids=str,
)
async def test_extensions_and_other_kinds_of_token_are_refused(
    trusting: Edge, issuer: Issuer, claims: Claims, header: dict[str, Any]
) -> None:
    """What has to be understood and is not (RFC 7515, section 4.1.11), and what is meant for another use."""
    assert await refused(trusting, issuer.sign("RS256", claims, **header)) == "jwt_malformed"


async def test_a_header_with_two_algorithms_is_refused(
    trusting: Edge, issuer: Issuer, claims: Claims, encoded: Any
) -> None:
    """Two readers would see two tokens."""
    header = '{"alg":"none","alg":"RS256","kid":"rsa-1"}'
    token = f"{encoded(header)}.{encoded(claims)}."
    assert await refused(trusting, token) == "jwt_malformed"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"exp": None}, "jwt_claim"),
        ({"exp": "tomorrow"}, "jwt_claim"),
        ({"exp": True}, "jwt_claim"),
        ({"exp": 10**400}, "jwt_claim"),
        ({"exp": 1e300}, "jwt_claim"),
        ({"exp": 1}, "jwt_expired"),
        ({"exp": -1}, "jwt_expired"),
        ({"exp": 0}, "jwt_expired"),
        ({"nbf": 4e9}, "jwt_future"),
        ({"iat": 4e9}, "jwt_future"),
        ({"nbf": "now"}, "jwt_future"),
        ({"aud": None}, "jwt_claim"),
        ({"aud": ""}, "jwt_audience"),
        ({"aud": []}, "jwt_audience"),
        ({"aud": "voice-agent-2"}, "jwt_audience"),
        ({"aud": "voice"}, "jwt_audience"),
        ({"aud": ["others", "voice-agent "]}, "jwt_audience"),
        ({"aud": {"voice-agent": 1}}, "jwt_audience"),
        ({"aud": ["voice-agent", 1]}, "jwt_audience"),
        ({"iss": None}, "jwt_claim"),
        ({"iss": "https://id.example.org"}, "jwt_issuer"),
        ({"iss": ["https://id.example.org/"]}, "jwt_issuer"),
        ({"sub": None}, "jwt_claim"),
        ({"sub": ""}, "jwt_claim"),
        ({"sub": 7}, "jwt_claim"),
        ({"sub": "a b"}, "jwt_claim"),
        ({"sub": "a\nb"}, "jwt_claim"),
        ({"sub": "álice"}, "jwt_claim"),
        ({"sub": "a" * 129}, "jwt_claim"),
        ({"scope": ["call"]}, "jwt_claim"),
        ({"scope": {"call": 1}}, "jwt_claim"),
        ({"scope": 1}, "jwt_claim"),
        ({"scope": None}, "jwt_claim"),
        ({"tenant": ""}, "jwt_claim"),
        ({"tenant": 1}, "jwt_claim"),
        ({"tenant": "a b"}, "jwt_claim"),
        ({"tenant": ["acme"]}, "jwt_claim"),
        ({"quotas": None}, "jwt_claim"),
        ({"quotas": []}, "jwt_claim"),
        ({"quotas": {"max_calls": -1}}, "jwt_claim"),
        ({"quotas": {"max_calls": 1.5}}, "jwt_claim"),
        ({"quotas": {"max_calls": True}}, "jwt_claim"),
        ({"quotas": {"max_calls": "3"}}, "jwt_claim"),
        ({"quotas": {"max_calls": 10**400}}, "jwt_claim"),
        ({"quotas": {"calls_per_minute": 0}}, "jwt_claim"),
        ({"quotas": {"calls_per_minute": 10**400}}, "jwt_claim"),
        ({"quotas": {"cals_per_minute": 1}}, "jwt_claim"),
        ({"quotas": {"retention_hours": -1}}, "jwt_claim"),
        ({"quotas": {"retention_hours": "0"}}, "jwt_claim"),
        ({"deep": json.loads("[" * 40 + "]" * 40)}, "jwt_malformed"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_claim_that_is_wrong_refuses_the_token(
    trusting: Edge, issuer: Issuer, claims: Claims, changed: dict[str, Any], reason: str
) -> None:
    """Expired, future, for others, from others, or of a type that could be understood in two ways."""
    assert await refused(trusting, issuer.sign("ES256", claims | changed)) == reason


@pytest.mark.parametrize("name", ["exp", "aud", "iss", "sub"])
async def test_what_every_token_must_have(trusting: Edge, issuer: Issuer, claims: Claims, name: str) -> None:
    """A token without an end, an addressee, an origin or a subject is refused."""
    del claims[name]
    assert await refused(trusting, issuer.sign("ES256", claims)) == "jwt_claim"


@pytest.mark.parametrize("aud", ["voice-agent", ["voice-agent"], ["others", "voice-agent"]])
async def test_an_audience_may_be_one_of_several(
    trusting: Edge, issuer: Issuer, claims: Claims, aud: Any
) -> None:
    """RFC 7519, section 4.1.3."""
    async with trusting.open() as authenticator:
        assert (
            await identify(authenticator, issuer.sign("ES256", claims | {"aud": aud}))
        ).key_id == "jwt:alice"


async def test_clocks_may_differ_by_the_leeway_and_no_more(
    trusting: Edge, issuer: Issuer, claims: Claims
) -> None:
    """Half a minute each way by default."""
    now = int(trusting.now)
    for name, good, bad, reason in (
        ("exp", now - 29, now - 30, "jwt_expired"),
        ("nbf", now + 30, now + 31, "jwt_future"),
        ("iat", now + 30, now + 31, "jwt_future"),
    ):
        async with trusting.open() as authenticator:
            await identify(authenticator, issuer.sign("ES256", claims | {name: good}))
        assert await refused(trusting, issuer.sign("ES256", claims | {name: bad})) == reason


@pytest.mark.parametrize(
    "payload",
    [
        b" ",
        b"null",
        b"[]",
        b'"alice"',
        b"{",
        b"\xff\xfe",
        b'{"sub":"alice","sub":"root"}',
        b'{"exp":NaN}',
        b'{"exp":Infinity}',
        b'{"sub":"\\ud800"}',
        b'{"exp":1e999}',
        b'{"a":' * 500 + b"1" + b"}" * 500,
    ],
    ids=lambda value: repr(value[:30]),
)
async def test_claims_are_read_strictly(trusting: Edge, issuer: Issuer, payload: bytes) -> None:
    """Signed or not: what is no JSON object, repeats a claim or can't be finite is not understood by halves."""
    assert await refused(trusting, issuer.sign("ES256", payload)) == "jwt_malformed"


async def test_a_token_that_was_changed_is_refused(trusting: Edge, issuer: Issuer, claims: Claims) -> None:
    """Any part, any character; a signature that is empty, short, long or somebody else's."""
    token = issuer.sign("ES256", claims)
    header, payload, signature = token.split(".")
    other = issuer.sign("ES256", claims | {"sub": "bob"})
    hostile = [
        f"{header}.{payload}.",
        f"{header}.{payload}.{signature[:-2]}",
        f"{header}.{payload}.{signature}AA",
        f"{header}.{payload}.{'A' * len(signature)}",
        f"{header}.{payload}.{other.split('.')[2]}",
        f"{header}.{other.split('.')[1]}.{signature}",
        f"{header}..{signature}",
    ]
    for changed in hostile:
        assert await refused(trusting, changed) in ("jwt_signature", "jwt_malformed")


@pytest.mark.parametrize("shape", ["{t}.", ".{t}", "{t} ", " {t}", "{t}\n", "{t}=", "{t}.{t}", "{t},{t}", "Bearer {t}", "é{t}",
                                   "{t}\x00", "\ufeff{t}", "{t}\ud800"])  # fmt: skip
async def test_a_token_stands_alone(trusting: Edge, issuer: Issuer, claims: Claims, shape: str) -> None:
    """Nothing before it, nothing behind it, no padding: there is one way to write a token."""
    token = shape.format(t=issuer.sign("ES256", claims))
    assert await refused(trusting, token) in ("jwt_malformed", "jwt_signature")


@pytest.mark.parametrize("token", ["", ".", "..", "...", "a.b.c", "e30.e30.", "x" * 9000, "." * 100_000,
                                   "a" * 10_000_000 + ".b.c"])  # fmt: skip
async def test_what_is_no_token(trusting: Edge, token: str) -> None:
    """Garbage and giants are refused by their form."""
    assert await refused(trusting, token) in ("jwt_malformed", "jwt_algorithm", "key_malformed")


async def test_a_token_has_a_largest_size(trusting: Edge, issuer: Issuer, claims: Claims) -> None:
    """8 KiB; up to that, even with a long header, it is read."""
    large = issuer.sign("ES256", claims | {"more": "x" * 3000}, more="y" * 1500)
    async with trusting.open() as authenticator:
        assert (await identify(authenticator, large)).key_id == "jwt:alice"
    assert await refused(trusting, issuer.sign("ES256", claims | {"more": "x" * 8000})) == "jwt_malformed"


async def test_an_encrypted_token_is_none_of_ours(trusting: Edge, encoded: Any) -> None:
    """JWE has five parts (RFC 7516, section 3.1)."""
    token = ".".join([encoded({"alg": "dir", "enc": "A128GCM"}), "", "AAAA", "AAAA", "AAAA"])
    assert await refused(trusting, token) == "jwt_malformed"


async def test_a_subject_never_passes_for_a_key_or_a_stranger(
    trusting: Edge, issuer: Issuer, claims: Claims
) -> None:
    """An issuer that names somebody like a key, or "anonymous", makes nobody into them."""
    for name in ("kiosk", "anonymous", "jwt:alice"):
        async with trusting.open() as authenticator:
            identity = await identify(authenticator, issuer.sign("ES256", claims | {"sub": name}))
            assert identity.key_id == f"jwt:{name}"


async def test_the_name_of_eddsa_warns_nobody(trusting: Edge, issuer: Issuer, claims: Claims) -> None:
    """The library warns of the older name at each use; the log is not the place for that."""
    token = issuer.sign("EdDSA", claims, key=OKPKey.import_key(issuer.okp.as_dict(private=True)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with trusting.open() as authenticator:
            await identify(authenticator, token)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_no_text_but_a_signed_one_is_anybody(
    trusting: Edge, issuer: Issuer, claims: Claims, data: st.DataObject
) -> None:
    """Whatever is put together from parts of tokens and of nonsense: refused, and never an error of another kind."""
    good = [issuer.sign(name, claims) for name in ("HS256", "ES256")]
    part = (
        st.sampled_from([p for token in good for p in token.split(".")] + ["", "e30", "bnVsbA", "AA"])
        | st.text()
    )
    token = ".".join(data.draw(st.lists(part, min_size=1, max_size=5)))
    if token in good:
        return
    async with trusting.open() as authenticator:
        with pytest.raises(UnauthenticatedError):
            await identify(authenticator, token)
