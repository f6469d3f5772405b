"""Offers, before any WebRTC library sees them: what is taken, what is refused with which code, what is dropped."""

import re
from contextlib import suppress

import pytest
from aiortc.sdp import SessionDescription
from hypothesis import given
from hypothesis import strategies as st

from voice_agent.core.errors import (
    CallerError,
    InvalidSdpError,
    NoCommonCodecError,
    TooManyCandidatesError,
    UnsupportedMediaError,
)
from voice_agent.transports.webrtc.candidates import AddressPolicy
from voice_agent.transports.webrtc.sdp import complete_answer, parse_offer

SHA_256 = ":".join(["AB"] * 32)
HEAD = ["v=0", "o=- 4611731400430051336 2 IN IP4 127.0.0.1", "s=-", "t=0 0", "a=group:BUNDLE 0 1"]
TRANSPORT = [
    "a=ice-ufrag:abcd",
    "a=ice-pwd:0123456789012345678901",
    f"a=fingerprint:sha-256 {SHA_256}",
    "a=setup:actpass",
]
AUDIO = [
    "m=audio 9 UDP/TLS/RTP/SAVPF 111 0",
    "c=IN IP4 0.0.0.0",
    "a=mid:0",
    "a=sendrecv",
    "a=rtcp-mux",
    "a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level",
    "a=rtpmap:111 opus/48000/2",
    "a=fmtp:111 minptime=10;useinbandfec=1",
    "a=rtpmap:0 PCMU/8000",
    "a=ssrc:3735928559 cname:somebody",
    *TRANSPORT,
]
DATA = [
    "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
    "c=IN IP4 0.0.0.0",
    "a=mid:1",
    "a=sctp-port:5000",
    "a=max-message-size:262144",
    *TRANSPORT,
]
VIDEO = ["m=video 9 UDP/TLS/RTP/SAVPF 96", "a=mid:2", "a=rtcp-mux", "a=rtpmap:96 VP8/90000", *TRANSPORT]
BROWSER = [*HEAD, *AUDIO, *DATA]


def sdp(*lines: str) -> str:
    return "\r\n".join(lines) + "\r\n"


def changed(old: str, *new: str) -> str:
    """The browser's offer with every line that begins so replaced."""
    lines: list[str] = []
    for line in BROWSER:
        lines += new if line.startswith(old) else [line]
    return sdp(*lines)


def with_candidates(*candidates: str) -> str:
    return sdp(*HEAD, *AUDIO, *(f"a=candidate:{c}" for c in candidates), *DATA)


def host(address: str, number: int = 1, transport: str = "udp") -> str:
    return f"{number} 1 {transport} 2122260223 {address} 50000 typ host generation 0 network-id 1"


def test_a_browser_s_offer_is_taken() -> None:
    """Audio both ways and a data channel; only Opus is left of the codecs."""
    offer = parse_offer(sdp(*BROWSER))
    assert (offer.direction, offer.has_data, offer.payload_type) == ("sendrecv", True, 111)
    assert offer.username_fragment == "abcd"
    assert "PCMU" not in offer.text


def test_what_is_passed_on_can_be_read_by_the_library() -> None:
    """Aiortc finds the same audio, data, credentials and fingerprints in what was written anew."""
    parsed = SessionDescription.parse(parse_offer(with_candidates(host("192.0.2.1"))).text)
    assert [media.kind for media in parsed.media] == ["audio", "application"]
    audio, data = parsed.media
    assert audio.rtcp_mux
    assert [codec.mimeType for codec in audio.rtp.codecs] == ["audio/opus"]
    assert [(c.ip, c.type) for c in audio.ice_candidates] == [("192.0.2.1", "host")]
    assert data.sctp_port == 5000
    assert data.dtls is not None
    assert data.dtls.fingerprints[0].value == SHA_256


@pytest.mark.parametrize("direction", ["sendonly", "sendrecv"])
def test_both_directions_of_a_speaker_are_taken(direction: str) -> None:
    """WHIP encoders send only; browsers do both."""
    assert parse_offer(changed("a=sendrecv", f"a={direction}")).direction == direction


@pytest.mark.parametrize(
    ("setup", "passed_on"), [("actpass", "active"), ("active", "active"), ("passive", "passive")]
)
def test_every_dtls_role_is_taken(setup: str, passed_on: str) -> None:
    """RFC 8842: the caller's choice holds; who has none becomes the client, so that RSA certificates work."""
    assert parse_offer(changed("a=setup", f"a=setup:{setup}")).text.count(f"a=setup:{passed_on}") == 2


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", InvalidSdpError),
        ("hello", InvalidSdpError),
        ("v=1\r\n", InvalidSdpError),
        (sdp(*BROWSER) + "\0", InvalidSdpError),
        (changed("a=ice-ufrag"), InvalidSdpError),
        (changed("a=ice-pwd", "a=ice-pwd:short"), InvalidSdpError),
        (changed("a=mid:1", "a=mid:0"), InvalidSdpError),
        (changed("a=fingerprint", "a=fingerprint:sha-256 AB:CD"), InvalidSdpError),
        (changed("a=fingerprint", "a=fingerprint:sha-256 nonsense"), InvalidSdpError),
        (changed("a=sctp-port"), InvalidSdpError),
        (changed("a=max-message-size", "a=max-message-size:-1"), InvalidSdpError),
        (changed("m=audio", "m=audio nine UDP/TLS/RTP/SAVPF 111"), InvalidSdpError),
        (changed("m=audio", "m=audio 9 UDP/TLS/RTP/SAVPF"), InvalidSdpError),
        (changed("a=fingerprint"), UnsupportedMediaError),
        (changed("a=fingerprint", "a=fingerprint:sha-1 " + ":".join(["AB"] * 20)), UnsupportedMediaError),
        (changed("a=rtcp-mux"), UnsupportedMediaError),
        (changed("m=audio", "m=audio 9 RTP/AVP 111"), UnsupportedMediaError),
        (
            changed("a=rtcp-mux", "a=rtcp-mux", "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:x"),
            UnsupportedMediaError,
        ),
        (changed("a=setup", "a=setup:holdconn"), UnsupportedMediaError),
        (changed("a=setup"), UnsupportedMediaError),
        (changed("a=sendrecv", "a=recvonly"), UnsupportedMediaError),
        (changed("a=sendrecv", "a=inactive"), UnsupportedMediaError),
        (changed("m=audio", "m=audio 0 UDP/TLS/RTP/SAVPF 111"), UnsupportedMediaError),
        (changed("a=group"), UnsupportedMediaError),
        (sdp(*HEAD, *DATA), UnsupportedMediaError),
        (sdp(*HEAD, *VIDEO), UnsupportedMediaError),
        (sdp(*HEAD), UnsupportedMediaError),
        (sdp(*BROWSER, *[line.replace("mid:0", "mid:9") for line in AUDIO]), UnsupportedMediaError),
        (sdp(*BROWSER, *[line.replace("mid:1", "mid:9") for line in DATA]), UnsupportedMediaError),
        (changed("a=rtpmap:111"), NoCommonCodecError),
        (changed("a=rtpmap:111", "a=rtpmap:111 opus/16000/1"), NoCommonCodecError),
        (changed("m=audio", "m=audio 9 UDP/TLS/RTP/SAVPF 0"), NoCommonCodecError),
        (with_candidates("nonsense"), InvalidSdpError),
        (with_candidates("1 1 udp 1 192.0.2.1 70000 typ host"), InvalidSdpError),
        (with_candidates(*(host(f"192.0.2.{n}", n) for n in range(1, 22))), TooManyCandidatesError),
        (with_candidates(*(host("127.0.0.1") + f" x {n}" for n in range(10_000))), TooManyCandidatesError),
    ],
)
def test_what_can_t_be_served_is_refused_by_name(text: str, error: type[CallerError]) -> None:
    """Each mistake has its typed error; its code tells the caller what to change."""
    with pytest.raises(CallerError) as caught:
        parse_offer(text)
    assert type(caught.value) is error


@pytest.mark.parametrize(
    ("address", "is_kept"),
    [
        ("192.0.2.1", True),
        ("10.1.2.3", True),
        ("2001:db8::1", True),
        ("3f1b2a4c-0000-4000-8000-1234567890ab.local", True),
        ("127.0.0.1", False),
        ("::1", False),
        ("::ffff:127.0.0.1", False),
        ("169.254.169.254", False),
        ("fe80::1", False),
        ("fe80::1%eth0", False),
        ("224.0.0.251", False),
        ("ff02::1", False),
        ("0.0.0.0", False),  # noqa: S104 (it is what must be dropped)
        ("::", False),
        ("255.255.255.255", False),
        ("metadata.internal", False),
        ("localhost", False),
        ("a.b.local", False),
        ("2130706433", False),
    ],
)
def test_candidates_that_are_no_caller_s_are_dropped(address: str, is_kept: bool) -> None:
    """The server sends nothing to itself, to its link's services, or to names of the caller's choice."""
    offer = parse_offer(with_candidates(host(address)))
    assert (len(offer.candidates), offer.candidates_dropped) == ((1, 0) if is_kept else (0, 1))
    assert (address in offer.text) is is_kept or address in {"0.0.0.0", "::"}  # noqa: S104


def test_loopback_candidates_are_kept_when_a_test_asks() -> None:
    """Client and server on one machine."""
    offer = parse_offer(with_candidates(host("127.0.0.1")), AddressPolicy(allow_loopback=True))
    assert offer.candidates == ("1 1 udp 2122260223 127.0.0.1 50000 typ host",)


def test_tcp_and_second_component_candidates_are_dropped() -> None:
    """The ICE library knows neither."""
    second = "2 2 udp 2122260222 192.0.2.1 50001 typ host"
    offer = parse_offer(with_candidates(host("192.0.2.1", transport="tcp"), second))
    assert (offer.candidates, offer.candidates_dropped) == ((), 2)


def test_video_is_declined_in_its_place() -> None:
    """RFC 3264, section 6: as many sections as offered, in the same order, the declined one with port 0."""
    offer = parse_offer(sdp(*HEAD, *VIDEO, *AUDIO, *DATA))
    assert "video" not in offer.text
    answer = sdp("v=0", "s=-", *AUDIO, *DATA)
    kinds = re.findall(r"(?m)^m=(\w+) (\d+)", complete_answer(answer, offer))
    assert kinds == [("video", "0"), ("audio", "9"), ("application", "9")]


def test_candidates_of_a_declined_section_of_the_bundle_are_kept() -> None:
    """A browser whose first section is video gathers there, and the bundle moves on to the audio."""
    video = [*VIDEO, f"a=candidate:{host('192.0.2.1')}"]
    bundle = [line.replace("BUNDLE 0 1", "BUNDLE 2 0 1") for line in HEAD]
    assert len(parse_offer(sdp(*bundle, *video, *AUDIO, *DATA)).candidates) == 1


def test_the_answer_asks_for_forward_error_correction() -> None:
    """RFC 7587: without useinbandfec=1 a browser sends none; what the answer says itself is left as it is."""
    offer = parse_offer(sdp(*BROWSER))
    bare = sdp("v=0", "m=audio 9 UDP/TLS/RTP/SAVPF 111", "a=rtpmap:111 opus/48000/2")
    assert "a=fmtp:111 minptime=10;useinbandfec=1\r\n" in complete_answer(bare, offer)
    own = bare + "a=fmtp:111 stereo=0\r\n"
    assert complete_answer(own, offer) == own


def test_nothing_of_unknown_lines_is_passed_on() -> None:
    """What was not checked does not reach the library; ICE servers of the caller's choice least of all."""
    offer = parse_offer(
        changed("a=sendrecv", "a=sendrecv", "a=ice-server:stun:evil.example", "a=x:1 2", "i=info")
    )
    assert "evil" not in offer.text
    assert "a=x" not in offer.text


@given(st.text())
def test_any_text_gives_a_typed_error_or_an_offer(text: str) -> None:
    """No text raises anything but a caller's error."""
    with suppress(CallerError):
        parse_offer(text)


@given(st.data())
def test_any_damage_to_an_offer_gives_a_typed_error_or_an_offer_the_library_can_read(
    data: st.DataObject,
) -> None:
    """Lines cut, doubled, swapped or overwritten: a typed error, or something that aiortc parses without raising."""
    lines = list(BROWSER)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(lines) - 1))
        match data.draw(st.sampled_from(["cut", "double", "swap", "shorten", "overwrite", "append"])):
            case "cut" if len(lines) > 1:
                del lines[place]
            case "double":
                lines.insert(place, lines[place])
            case "swap":
                other = data.draw(st.integers(0, len(lines) - 1))
                lines[place], lines[other] = lines[other], lines[place]
            case "shorten":
                lines[place] = lines[place][: data.draw(st.integers(0, len(lines[place])))]
            case "overwrite":
                lines[place] = lines[place][:8] + data.draw(st.text(max_size=12))
            case _:
                lines[place] += data.draw(st.text(max_size=12))
    try:
        offer = parse_offer(sdp(*lines))
    except CallerError:
        return
    parsed = SessionDescription.parse(offer.text)
    assert parsed.media[0].kind in {"audio", "application"}
    assert all(media.dtls is not None and media.dtls.fingerprints for media in parsed.media)
