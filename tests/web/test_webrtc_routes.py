"""The WHIP routes without a server or media: each status and header that RFC 9725 names."""

from typing import Any

import attrs
import pytest
from quart_trio import QuartTrio

from voice_agent.access.caller import Caller
from voice_agent.access.refusal import Refusal
from voice_agent.core.commands import CallOptions, Resume
from voice_agent.core.errors import (
    ResumeExpiredError,
    ResumeForeignError,
    ResumeRefusedError,
    ResumeTokenUsedError,
    ResumeTokenWrongError,
    ResumeUnavailableError,
    ResumeUnknownError,
    UnsupportedMediaError,
    VoiceAgentError,
)
from voice_agent.core.identity import ANONYMOUS, Identity, Scope
from voice_agent.core.request_errors import (
    RateLimitedError,
    ServerDrainingError,
    ServerFullError,
    ServerOverloadedError,
    TooManyCallsError,
)
from voice_agent.observability.metrics import Metrics
from voice_agent.transports.webrtc.candidates import AddressPolicy
from voice_agent.transports.webrtc.sdp import Offer
from voice_agent.transports.webrtc.signalling import Fragment
from voice_agent.web.app import Readiness, create_app
from voice_agent.web.webrtc_routes import CallRefusedError, OpenedCall, create_webrtc_routes

pytestmark = pytest.mark.usefixtures("everybody")

OFFER = "\r\n".join(
    [
        "v=0", "o=- 1 1 IN IP4 0.0.0.0", "s=-", "t=0 0", "m=audio 9 UDP/TLS/RTP/SAVPF 111", "a=mid:0", "a=sendonly",
        "a=rtcp-mux", "a=rtpmap:111 opus/48000/2", "a=ice-ufrag:abcd", "a=ice-pwd:0123456789012345678901",
        "a=fingerprint:sha-256 " + ":".join(["AB"] * 32), "a=setup:actpass", "",
    ]
)  # fmt: skip
FRAGMENT = (
    "a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n"
    "a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\na=end-of-candidates\r\n"
)
SDP = {"Content-Type": "application/sdp"}
TRICKLE = {"Content-Type": "application/trickle-ice-sdpfrag", "If-Match": '"tag"'}


@attrs.define
class FakeCall:
    etag: str = '"tag"'
    username_fragment: str = "abcd"
    fragments: list[Fragment] = attrs.field(factory=list)
    is_ended: bool = False

    async def add_candidates(self, fragment: Fragment) -> None:
        self.fragments.append(fragment)

    def end(self) -> None:
        self.is_ended = True


@attrs.define
class FakeDesk:
    policy: AddressPolicy = attrs.field(factory=AddressPolicy)
    max_offer_bytes: int = 32_768
    defaults: CallOptions = attrs.field(factory=CallOptions)
    refused: Refusal | None = None
    error: Exception | None = None
    call: FakeCall = attrs.field(factory=FakeCall)
    owner: Identity = ANONYMOUS
    opened: list[tuple[Offer, CallOptions]] = attrs.field(factory=list)
    asked: list[Caller] = attrs.field(factory=list)
    resumed: list[Resume | None] = attrs.field(factory=list)

    def admit(self, caller: Caller) -> Refusal | None:
        self.asked.append(caller)
        return self.refused

    async def open_call(
        self, offer: Offer, options: CallOptions, caller: Caller, resume: Resume | None
    ) -> OpenedCall:
        if self.error is not None:
            raise self.error
        self.resumed.append(resume)
        self.opened.append((offer, options))
        links = ('<stun:a.example>; rel="ice-server"', '<turn:b.example>; rel="ice-server"; username="u"')
        return OpenedCall(key="secret-key", etag='"tag"', answer="v=0\r\n", links=links)

    def find(self, key: str, identity: Identity) -> FakeCall | None:
        return self.call if key == "secret-key" and identity.is_same_as(self.owner) else None


@pytest.fixture
def desk() -> FakeDesk:
    return FakeDesk()


@pytest.fixture
def app(desk: FakeDesk) -> QuartTrio:
    return create_app(
        metrics=Metrics(), readiness=lambda: Readiness(True, {}), routes=[create_webrtc_routes(desk)]
    )


async def expect_problem(answer: Any, status: int, code: str) -> None:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    body = await answer.get_json()
    assert (body["status"], body["code"]) == (status, code)
    assert body["detail"]


async def test_an_offer_may_go_on_with_a_session(app: QuartTrio, desk: FakeDesk) -> None:
    """The header holds the object of a `start`; without it a new session begins."""
    resume = '{"session": "s1", "token": "t1", "last_seq": 7, "audio_ms": 9000}'
    for headers in ({**SDP, "Voice-Agent-Resume": resume}, SDP):
        assert (await app.test_client().post("/v1/webrtc", data=OFFER, headers=headers)).status_code == 201
    assert desk.resumed == [Resume(session_id="s1", token="t1", last_seq=7, audio_ms=9000), None]  # noqa: S106


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", "invalid_json"),
        ('{"session": "s1", "session": "s2", "token": "t"}', "invalid_json"),
        ("[]", "not_an_object"),
        ("{}", "invalid_field"),
        ('{"session": "s1", "token": 3}', "invalid_field"),
        ('{"session": "s1", "token": "t", "since": 3}', "invalid_field"),
        ('{"session": "s1", "token": "t", "last_seq": -1}', "invalid_field"),
        ('{"session": "s1", "token": "t", "audio_ms": 1.5}', "invalid_field"),
    ],
)
async def test_a_bad_resume_header_is_refused(app: QuartTrio, desk: FakeDesk, text: str, code: str) -> None:
    """It is read as strictly as a `start`, and no call begins."""
    answer = await app.test_client().post(
        "/v1/webrtc", data=OFFER, headers={**SDP, "Voice-Agent-Resume": text}
    )
    await expect_problem(answer, 400, code)
    assert desk.opened == []


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ResumeUnknownError, 404),
        (ResumeTokenWrongError, 403),
        (ResumeTokenUsedError, 409),
        (ResumeForeignError, 403),
        (ResumeExpiredError, 410),
        (ResumeUnavailableError, 503),
    ],
)
async def test_why_a_session_does_not_go_on_is_told(
    app: QuartTrio, desk: FakeDesk, error: type[ResumeRefusedError], status: int
) -> None:
    """Each reason with its own status and code."""
    desk.error = error("no")
    await expect_problem(
        await app.test_client().post("/v1/webrtc", data=OFFER, headers=SDP), status, error.code
    )


async def test_an_offer_is_answered(app: QuartTrio, desk: FakeDesk) -> None:
    """201, the answer, its address, its tag, and one Link for each ICE server; nothing may be cached."""
    answer = await app.test_client().post("/v1/webrtc?partials=false", data=OFFER, headers=SDP)
    assert answer.status_code == 201
    assert answer.headers["content-type"] == "application/sdp"
    assert answer.headers["location"] == "/v1/webrtc/secret-key"
    assert answer.headers["etag"] == '"tag"'
    assert answer.headers["cache-control"] == "no-store"
    assert len(answer.headers.getlist("link")) == 2
    [(offer, options)] = desk.opened
    assert offer.direction == "sendonly"
    assert options == CallOptions(partials=False)


@pytest.mark.parametrize(
    ("data", "headers", "query", "status", "code"),
    [
        (OFFER, {"Content-Type": "application/json"}, "", 415, "unsupported_content_type"),
        (OFFER, {}, "", 415, "unsupported_content_type"),
        ("", SDP, "", 400, "invalid_sdp"),
        ("garbage", SDP, "", 400, "invalid_sdp"),
        (b"\xff\xfe", SDP, "", 400, "invalid_sdp"),
        (OFFER + "a=x\r\n" * 10_000, SDP, "", 413, "body_too_large"),
        (OFFER + "a" * 1_000_000, SDP, "", 413, "body_too_large"),
        (OFFER.replace("a=rtcp-mux\r\n", ""), SDP, "", 422, "unsupported_media"),
        (OFFER.replace("opus", "PCMU"), SDP, "", 422, "no_common_codec"),
        (OFFER + "a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n" * 2, SDP, "?a=1", 400, "invalid_field"),
        (OFFER, SDP, "?partials=maybe", 400, "invalid_field"),
    ],
)
async def test_a_bad_request_is_a_problem(
    app: QuartTrio, desk: FakeDesk, data: Any, headers: dict[str, str], query: str, status: int, code: str
) -> None:
    """Each with its status and code, and no call is opened."""
    answer = await app.test_client().post(f"/v1/webrtc{query}", data=data, headers=headers)
    await expect_problem(answer, status, code)
    assert desk.opened == []


async def test_too_many_candidates(app: QuartTrio) -> None:
    """422: twenty-one different ones."""
    many = "".join(f"a=candidate:1 1 udp 1 192.0.2.{n} 9 typ host\r\n" for n in range(1, 22))
    answer = await app.test_client().post("/v1/webrtc", data=OFFER + many, headers=SDP)
    await expect_problem(answer, 422, "too_many_candidates")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ServerFullError("no"), 503),
        (ServerDrainingError("no"), 503),
        (ServerOverloadedError("no"), 503),
        (RateLimitedError("no"), 429),
        (TooManyCallsError("no"), 429),
    ],
)
async def test_who_gets_no_call_is_told_why_and_when_to_come_again(
    app: QuartTrio, desk: FakeDesk, error: VoiceAgentError, status: int
) -> None:
    """Status, code and Retry-After, whether it is known before the offer is read or only after."""
    refusal = Refusal(error=error, headers=((b"retry-after", b"7"),))
    desk.refused = refusal
    answer = await app.test_client().post("/v1/webrtc", data=OFFER, headers=SDP)
    await expect_problem(answer, status, error.code)
    assert answer.headers["retry-after"] == "7"
    desk.refused, desk.error = None, CallRefusedError(refusal)
    answer = await app.test_client().post("/v1/webrtc", data=OFFER, headers=SDP)
    await expect_problem(answer, status, error.code)
    assert answer.headers["retry-after"] == "7"
    assert desk.asked == [Caller(ANONYMOUS, "192.0.2.7")] * 2


async def test_what_the_media_refuses_is_a_problem_too(app: QuartTrio, desk: FakeDesk) -> None:
    """A caller's error from behind the desk is told by its code."""
    desk.error = UnsupportedMediaError("no")
    await expect_problem(
        await app.test_client().post("/v1/webrtc", data=OFFER, headers=SDP), 422, "unsupported_media"
    )


async def test_candidates_may_come_later(app: QuartTrio, desk: FakeDesk) -> None:
    """PATCH with the tag: 204 without a body."""
    answer = await app.test_client().patch("/v1/webrtc/secret-key", data=FRAGMENT, headers=TRICKLE)
    assert answer.status_code == 204
    assert await answer.get_data() == b""
    [fragment] = desk.call.fragments
    assert fragment.is_last
    assert len(fragment.candidates) == 1


@pytest.mark.parametrize(
    ("path", "data", "headers", "status", "code"),
    [
        ("other", FRAGMENT, TRICKLE, 404, "not_found"),
        (
            "secret-key",
            FRAGMENT,
            {**TRICKLE, "Content-Type": "application/sdp"},
            415,
            "unsupported_content_type",
        ),
        ("secret-key", FRAGMENT, {"Content-Type": TRICKLE["Content-Type"]}, 428, "etag_required"),
        ("secret-key", FRAGMENT, {**TRICKLE, "If-Match": '"old"'}, 412, "etag_mismatch"),
        ("secret-key", "garbage", TRICKLE, 400, "invalid_sdp"),
        ("secret-key", FRAGMENT.replace("abcd", "wxyz"), TRICKLE, 422, "ice_restart_unsupported"),
        (
            "secret-key",
            FRAGMENT.replace("abcd", "wxyz"),
            {**TRICKLE, "If-Match": "*"},
            422,
            "ice_restart_unsupported",
        ),
        ("secret-key", FRAGMENT * 1000, TRICKLE, 413, "body_too_large"),
    ],
)
async def test_a_bad_patch_is_a_problem(
    app: QuartTrio, desk: FakeDesk, path: str, data: str, headers: dict[str, str], status: int, code: str
) -> None:
    """404, 412, 413, 415, 422, 428 where the RFC says so; no candidate is taken."""
    answer = await app.test_client().patch(f"/v1/webrtc/{path}", data=data, headers=headers)
    await expect_problem(answer, status, code)
    assert desk.call.fragments == []


async def test_delete_ends_the_call(app: QuartTrio, desk: FakeDesk) -> None:
    """200; a call that is not there, 404."""
    client = app.test_client()
    await expect_problem(await client.delete("/v1/webrtc/other"), 404, "not_found")
    assert not desk.call.is_ended
    assert (await client.delete("/v1/webrtc/secret-key")).status_code == 200
    assert desk.call.is_ended


@pytest.mark.parametrize("who", [("k2", "t1"), ("k1", "t2")], ids=["another key", "another tenant"])
@pytest.mark.parametrize(("method", "data"), [("GET", b""), ("PATCH", FRAGMENT), ("DELETE", b"")])
async def test_a_call_is_its_own_callers_alone(
    app: QuartTrio, desk: FakeDesk, client_of: Any, who: tuple[str, str], method: str, data: Any
) -> None:
    """To another identity a call that is open is answered exactly as one that is not."""
    desk.owner = Identity(key_id="k1", tenant="t1", scopes=frozenset({Scope.CALL}))
    client = client_of(app, attrs.evolve(desk.owner, key_id=who[0], tenant=who[1]))
    answers = [
        await client.open(f"/v1/webrtc/{key}", method=method, data=data, headers=TRICKLE)
        for key in ("secret-key", "other")
    ]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert await answers[0].get_data() == await answers[1].get_data()
    assert dict(answers[0].headers) == dict(answers[1].headers)
    assert not desk.call.is_ended
    assert desk.call.fragments == []
    mine = await client_of(app, desk.owner).open(
        "/v1/webrtc/secret-key", method=method, data=data, headers=TRICKLE
    )
    assert mine.status_code in {200, 204}


async def test_nobody_begins_a_call(app: QuartTrio, desk: FakeDesk, client_of: Any) -> None:
    """Without an identity an offer is not even looked at."""
    answer = await client_of(app, None).post("/v1/webrtc", data=OFFER, headers=SDP)
    await expect_problem(answer, 401, "unauthenticated")
    assert desk.opened == []


async def test_get_and_head_are_empty(app: QuartTrio) -> None:
    """A 2xx with nothing in it, on the endpoint and on a call."""
    client = app.test_client()
    for path in ("/v1/webrtc", "/v1/webrtc/secret-key"):
        for ask in (client.get, client.head):
            answer = await ask(path)
            assert answer.status_code == 204
            assert await answer.get_data() == b""
    assert (await client.get("/v1/webrtc/other")).status_code == 404


async def test_options_tell_what_may_be_posted_and_no_origin_is_let_in(app: QuartTrio) -> None:
    """Accept-Post as the RFC asks; a preflight from another site gets no Access-Control-Allow-Origin."""
    preflight = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    answer = await app.test_client().options("/v1/webrtc", headers=preflight)
    assert answer.status_code == 204
    assert answer.headers["accept-post"] == "application/sdp"
    assert "POST" in answer.headers["allow"]
    assert not [name for name in answer.headers.keys() if name.lower().startswith("access-control")]  # noqa: SIM118
    answer = await app.test_client().options("/v1/webrtc/secret-key")
    assert answer.headers["accept-patch"] == "application/trickle-ice-sdpfrag"
    assert "DELETE" in answer.headers["allow"]


@pytest.mark.parametrize(
    ("method", "path"), [("PUT", "/v1/webrtc"), ("DELETE", "/v1/webrtc"), ("POST", "/v1/webrtc/secret-key")]
)
async def test_other_methods_are_not_allowed(app: QuartTrio, method: str, path: str) -> None:
    """405 with Allow."""
    answer = await app.test_client().open(path, method=method)
    assert answer.status_code == 405
    assert "OPTIONS" in answer.headers["allow"]
