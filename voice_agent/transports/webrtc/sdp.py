"""A caller's SDP offer, judged before aiortc sees it, and the answer made whole again behind it. Pure.

aiortc raises assertion, key and attribute errors on bad SDP and accepts offers that have no fingerprint. So nothing of
the caller's text reaches it: an offer is read strictly (RFC 8866, RFC 8829, RFC 8839, RFC 8842), and what it asks for is
written anew with only the attributes that have been checked. Video is declined: it is taken out before aiortc and put
back, with port 0, into the answer.
"""

import re
from collections.abc import Iterable
from typing import Final

import attrs

from voice_agent.core.errors import InvalidSdpError, NoCommonCodecError, UnsupportedMediaError
from voice_agent.transports.webrtc.candidates import AddressPolicy, judge_candidates

MAX_SECTIONS: Final = 16
MAX_LINE_CHARS: Final = 4096

AUDIO_PROTOCOLS: Final = frozenset({"UDP/TLS/RTP/SAVPF", "TCP/TLS/RTP/SAVPF", "UDP/TLS/RTP/SAVP"})
DATA_PROTOCOLS: Final = frozenset({"UDP/DTLS/SCTP", "TCP/DTLS/SCTP"})

DEFAULT_MESSAGE_BYTES: Final = 65_536
"""RFC 8841, section 6.1: what a peer takes that doesn't say."""
MAX_MESSAGE_BYTES: Final = 262_144

_DIGEST_BYTES: Final = {"sha-256": 32, "sha-384": 48, "sha-512": 64}
_DIRECTIONS: Final = frozenset({"sendrecv", "sendonly", "recvonly", "inactive"})
_SETUPS: Final = frozenset({"actpass", "active", "passive"})
_EXTENSIONS: Final = frozenset(
    {"urn:ietf:params:rtp-hdrext:sdes:mid", "urn:ietf:params:rtp-hdrext:ssrc-audio-level"}
)

_LINE: Final = re.compile(r"[a-z]=[^\x00\r\n]*", re.ASCII)
_MEDIA: Final = re.compile(
    r"(?P<kind>[A-Za-z0-9]{1,32}) (?P<port>[0-9]{1,5})(?:/[0-9]{1,5})? (?P<protocol>[A-Za-z0-9/]{1,64})"
    r"(?P<formats>(?: [!-~]{1,64}){1,128})",
    re.ASCII,
)
_TOKEN: Final = re.compile(r"[!#$%&'*+.0-9A-Z^_`a-z{|}~-]{1,64}", re.ASCII)
_UFRAG: Final = re.compile(r"[A-Za-z0-9+/=_-]{4,256}", re.ASCII)
"""RFC 8839, section 5.4, and `=`, `_`, `-`, which clients in the field use although they are no ice-char."""
_PASSWORD: Final = re.compile(r"[A-Za-z0-9+/=_-]{22,256}", re.ASCII)
_FINGERPRINT: Final = re.compile(
    r"(?P<digest>[A-Za-z0-9-]{1,16}) (?P<value>[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2})*)"
)
_RTPMAP: Final = re.compile(
    r"(?P<type>[0-9]{1,3}) (?P<codec>[A-Za-z0-9-]{1,32})/(?P<rate>[0-9]{1,7})(?:/(?P<channels>[0-9]{1,2}))?"
)
_EXTMAP: Final = re.compile(r"(?P<id>[0-9]{1,5})(?:/[a-z]{1,8})? (?P<uri>[!-~]{1,255})(?: .*)?")
_SSRC: Final = re.compile(r"(?P<ssrc>[0-9]{1,10}) .*")
_NUMBER: Final = re.compile(r"[0-9]{1,10}", re.ASCII)

_FIRST_DYNAMIC_TYPE: Final = 96
_LAST_DYNAMIC_TYPE: Final = 127
_MAX_ONE_BYTE_EXTENSION: Final = 14
_MAX_SSRC: Final = 2**32 - 1
_MAX_PORT: Final = 65_535
_QUOTED_CHARS: Final = 60


@attrs.frozen
class Declined:
    """A section that is not served, and where in the offer it stands."""

    index: int
    kind: str
    protocol: str
    formats: str
    mid: str


@attrs.frozen(kw_only=True)
class Offer:
    """What a caller offers, in order: ``text`` is what may be given to aiortc, the rest is for people and tests."""

    text: str = attrs.field(repr=False)
    username_fragment: str
    password: str = attrs.field(repr=False)
    direction: str
    """Of the audio, as the caller sees it: ``sendrecv`` or ``sendonly``."""
    has_data: bool
    """Whether a data channel can be opened."""
    candidates: tuple[str, ...] = ()
    candidates_dropped: int = 0
    declined: tuple[Declined, ...] = ()
    payload_type: int = _FIRST_DYNAMIC_TYPE
    """RTP payload type of Opus."""


@attrs.frozen
class _Lines:
    """The lines of the session or of one section: attributes by name, in order."""

    attributes: tuple[tuple[str, str], ...]

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.attributes if key == name]

    def first(self, name: str) -> str | None:
        return next((value for key, value in self.attributes if key == name), None)

    def has(self, name: str) -> bool:
        return any(key == name for key, _ in self.attributes)


@attrs.frozen
class _Section(_Lines):
    index: int
    kind: str
    port: int
    protocol: str
    formats: str

    @property
    def mid(self) -> str:
        return self.first("mid") or ""

    @property
    def is_enabled(self) -> bool:
        """RFC 9143, section 7.2.1: port 0 rejects a section, unless it only waits to be bundled."""
        return self.port > 0 or self.has("bundle-only")


@attrs.frozen(kw_only=True)
class _Transport:
    """What ICE and DTLS need; the same for every section of a bundle."""

    username_fragment: str
    password: str
    fingerprints: tuple[str, ...]
    setup: str

    def lines(self) -> list[str]:
        return [
            f"a=ice-ufrag:{self.username_fragment}",
            f"a=ice-pwd:{self.password}",
            *(f"a=fingerprint:{fingerprint}" for fingerprint in self.fingerprints),
            f"a=setup:{self.setup}",
        ]


def parse_offer(text: str, policy: AddressPolicy | None = None) -> Offer:
    """Read an offer strictly.

    Raises:
        InvalidSdpError: the text is no SDP, or an attribute is malformed or missing.
        UnsupportedMediaError: no audio from the caller, several audio or data sections, no DTLS-SRTP with SHA-2,
            no RTP/RTCP multiplexing, or audio and data that are not bundled.
        NoCommonCodecError: the audio has no Opus.
        TooManyCandidatesError: more candidates than are taken.
    """
    session, sections = _split(text)
    audio, data, declined = _sort(sections)
    served = [section for section in sections if section is audio or section is data]
    bundle = _bundle(session)
    if len(served) > 1 and not {section.mid for section in served} <= bundle:
        raise UnsupportedMediaError("audio and data must be in one BUNDLE group", field="a=group")
    transport = _transport(session, served)
    direction = _direction(session, audio)
    if not audio.has("rtcp-mux"):
        raise UnsupportedMediaError(
            "RTP and RTCP must share a port: a=rtcp-mux is missing", field="a=rtcp-mux"
        )
    payload_type = _opus_type(audio)
    gathered = [section for section in sections if section in served or section.mid in bundle]
    candidates, dropped = judge_candidates(
        dict.fromkeys(value for section in gathered for value in section.all("candidate")),
        policy or AddressPolicy(),
    )
    lines = ["v=0", "o=- 1 1 IN IP4 0.0.0.0", "s=-", "t=0 0"]
    lines.append("a=group:BUNDLE " + " ".join(section.mid for section in served))
    is_complete = any(lines_.has("end-of-candidates") for lines_ in (session, *gathered))
    for section in served:
        lines += _audio_lines(audio, payload_type, direction) if section is audio else _data_lines(section)
        lines += [f"a=mid:{section.mid}", *transport.lines()]
        if section is served[0]:
            lines += [f"a=candidate:{candidate}" for candidate in candidates]
            lines += ["a=end-of-candidates"] if is_complete else []
    return Offer(
        text="\r\n".join(lines) + "\r\n",
        username_fragment=transport.username_fragment,
        password=transport.password,
        direction=direction,
        has_data=data is not None,
        candidates=candidates,
        candidates_dropped=dropped,
        declined=declined,
        payload_type=payload_type,
    )


def complete_answer(answer: str, offer: Offer) -> str:
    """Put the declined sections back where the offer has them (RFC 3264, section 6), and ask for in-band FEC.

    ``answer`` is aiortc's, whose sections are those of ``offer.text``.
    """
    head, *sections = re.split(r"(?m)^(?=m=)", answer)
    sections = [_with_fec(section, offer.payload_type) for section in sections]
    for declined in offer.declined:
        lines = [
            f"m={declined.kind} 0 {declined.protocol}{declined.formats}",
            "c=IN IP4 0.0.0.0",
            "a=inactive",
        ]
        lines += [f"a=mid:{declined.mid}"] if declined.mid else []
        sections.insert(declined.index, "\r\n".join(lines) + "\r\n")
    return head + "".join(sections)


def _with_fec(section: str, payload_type: int) -> str:
    """RFC 7587, section 6.1: a decoder that can use forward error correction says so."""
    if not section.startswith("m=audio") or f"a=fmtp:{payload_type} " in section:
        return section
    return re.sub(
        rf"(?mi)^(a=rtpmap:{payload_type} opus/48000/2)\r?\n",
        rf"\1\r\na=fmtp:{payload_type} minptime=10;useinbandfec=1\r\n",
        section,
        count=1,
    )


def split_lines(text: str, what: str) -> list[tuple[str, str]]:
    """Split SDP into its type and value pairs.

    Raises:
        InvalidSdpError: empty, a line that is none, or one that is too long.
    """
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    if not text.strip():
        raise InvalidSdpError(f"the {what} is empty")
    for number, line in enumerate(lines, 1):
        if len(line) > MAX_LINE_CHARS or not _LINE.fullmatch(line):
            raise InvalidSdpError(f"line {number} of the {what}, {line[:_QUOTED_CHARS]!r}, is no SDP line")
    return [(line[0], line[2:]) for line in lines]


def attribute(value: str) -> tuple[str, str]:
    """Split what stands behind ``a=``."""
    name, _, rest = value.partition(":")
    return name, rest.strip(" ")


def check_credentials(username_fragment: str | None, password: str | None) -> tuple[str, str]:
    """Return both, or raise :class:`InvalidSdpError`."""
    if username_fragment is None or not _UFRAG.fullmatch(username_fragment):
        raise InvalidSdpError("a=ice-ufrag is missing or malformed", field="a=ice-ufrag")
    if password is None or not _PASSWORD.fullmatch(password):
        raise InvalidSdpError("a=ice-pwd is missing or malformed", field="a=ice-pwd")
    return username_fragment, password


def _split(text: str) -> tuple[_Lines, list[_Section]]:
    lines = split_lines(text, "offer")
    if lines[0] != ("v", "0"):
        raise InvalidSdpError("an offer begins with v=0", field="v=")
    starts = [index for index, (kind, _) in enumerate(lines) if kind == "m"]
    if len(starts) > MAX_SECTIONS:
        raise UnsupportedMediaError(f"an offer may have {MAX_SECTIONS} media sections", field="m=")
    ends = [*starts[1:], len(lines)][: len(starts)]
    sections = [
        _section(index, lines[start][1], lines[start + 1 : end])
        for index, (start, end) in enumerate(zip(starts, ends, strict=True))
    ]
    mids = [section.mid for section in sections]
    if any(not _TOKEN.fullmatch(mid) for mid in mids) or len(set(mids)) != len(mids):
        raise InvalidSdpError("each media section needs an a=mid of its own", field="a=mid")
    return _Lines(_attributes(lines[: starts[0]] if starts else lines)), sections


def _section(index: int, head: str, lines: Iterable[tuple[str, str]]) -> _Section:
    match = _MEDIA.fullmatch(head)
    if match is None or int(match["port"]) > _MAX_PORT:
        raise InvalidSdpError(f"'m={head[:_QUOTED_CHARS]}' is no media section", field="m=")
    return _Section(
        _attributes(lines), index, match["kind"], int(match["port"]), match["protocol"], match["formats"]
    )


def _attributes(lines: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple(attribute(value) for kind, value in lines if kind == "a")


def _sort(sections: list[_Section]) -> tuple[_Section, _Section | None, tuple[Declined, ...]]:
    """Return the audio, the data, and what is declined."""
    enabled = [section for section in sections if section.is_enabled]
    audio = [section for section in enabled if section.kind == "audio"]
    data = [section for section in enabled if section.kind == "application"]
    if not audio:
        raise UnsupportedMediaError("the offer has no audio", field="m=audio")
    if len(audio) > 1 or len(data) > 1:
        raise UnsupportedMediaError("an offer may have one audio and one application section", field="m=")
    if audio[0].protocol not in AUDIO_PROTOCOLS or audio[0].has("crypto"):
        raise UnsupportedMediaError(
            f"audio over {audio[0].protocol} can't be served; use UDP/TLS/RTP/SAVPF without SDES",
            field="m=audio",
        )
    if data and (data[0].protocol not in DATA_PROTOCOLS or data[0].formats != " webrtc-datachannel"):
        raise UnsupportedMediaError("data must be UDP/DTLS/SCTP webrtc-datachannel", field="m=application")
    served = {audio[0].index, *(section.index for section in data)}
    declined = tuple(
        Declined(section.index, section.kind, section.protocol, section.formats, section.mid)
        for section in sections
        if section.index not in served
    )
    return audio[0], data[0] if data else None, declined


def _bundle(session: _Lines) -> frozenset[str]:
    """The mids of the first BUNDLE group (RFC 9143)."""
    for value in session.all("group"):
        semantics, *mids = value.split()[: MAX_SECTIONS + 1] or [""]
        if semantics == "BUNDLE":
            return frozenset(mids)
    return frozenset()


def _transport(session: _Lines, served: list[_Section]) -> _Transport:
    """Read ICE and DTLS of the served sections, which must agree; a section's own lines come before the session's."""
    found = [_transport_of(session, section) for section in served]
    if any(other != found[0] for other in found[1:]):
        raise UnsupportedMediaError(
            "audio and data must share one ICE and DTLS transport", field="a=ice-ufrag"
        )
    return found[0]


def _transport_of(session: _Lines, section: _Section) -> _Transport:
    username_fragment, password = check_credentials(
        section.first("ice-ufrag") or session.first("ice-ufrag"),
        section.first("ice-pwd") or session.first("ice-pwd"),
    )
    setup = section.first("setup") or session.first("setup")
    if setup not in _SETUPS:
        raise UnsupportedMediaError("a=setup must be actpass, active or passive", field="a=setup")
    return _Transport(
        username_fragment=username_fragment,
        password=password,
        fingerprints=_fingerprints(section.all("fingerprint") or session.all("fingerprint")),
        # Who leaves us the choice becomes the DTLS client: aiortc's own client offers no cipher suites for RSA, which
        # is what GStreamer's certificates are.
        setup="active" if setup == "actpass" else setup,
    )


def _fingerprints(values: list[str]) -> tuple[str, ...]:
    """RFC 8122, section 5; digests of which forgeries are known or feared are not looked at."""
    kept = []
    for value in values:
        match = _FINGERPRINT.fullmatch(value)
        if match is None:
            raise InvalidSdpError("a=fingerprint is malformed", field="a=fingerprint")
        digest, size = match["digest"].lower(), match["value"].count(":") + 1
        if digest in _DIGEST_BYTES:
            if size != _DIGEST_BYTES[digest]:
                raise InvalidSdpError(f"a=fingerprint has not the length of {digest}", field="a=fingerprint")
            kept.append(f"{digest} {match['value'].upper()}")
    if not kept:
        raise UnsupportedMediaError(
            "DTLS needs a certificate's fingerprint: sha-256, sha-384 or sha-512", field="a=fingerprint"
        )
    return tuple(dict.fromkeys(kept))


def _direction(session: _Lines, audio: _Section) -> str:
    """RFC 8866, section 6.7: sendrecv where nothing is said."""
    directions = [name for lines in (audio, session) for name, _ in lines.attributes if name in _DIRECTIONS]
    direction = directions[0] if directions else "sendrecv"
    if direction not in {"sendrecv", "sendonly"}:
        raise UnsupportedMediaError(
            f"{direction} audio brings no speech; offer sendrecv or sendonly", field="m=audio"
        )
    return direction


def _opus_type(audio: _Section) -> int:
    """Return the payload type of Opus (RFC 7587, section 7: always 48000 Hz and two channels)."""
    offered = audio.formats.split()
    for value in audio.all("rtpmap"):
        match = _RTPMAP.fullmatch(value)
        if match is None:
            raise InvalidSdpError(f"'a=rtpmap:{value[:_QUOTED_CHARS]}' is malformed", field="a=rtpmap")
        is_opus = (match["codec"].lower(), match["rate"], match["channels"]) == ("opus", "48000", "2")
        is_dynamic = _FIRST_DYNAMIC_TYPE <= int(match["type"]) <= _LAST_DYNAMIC_TYPE
        if is_opus and is_dynamic and match["type"] in offered:
            return int(match["type"])
    raise NoCommonCodecError("the audio must be offered as opus/48000/2", field="a=rtpmap")


def _audio_lines(audio: _Section, payload_type: int, direction: str) -> list[str]:
    lines = [f"m=audio 9 {audio.protocol} {payload_type}", "c=IN IP4 0.0.0.0", f"a={direction}", "a=rtcp-mux"]
    lines.append(f"a=rtpmap:{payload_type} opus/48000/2")
    for value in audio.all("extmap"):
        match = _EXTMAP.fullmatch(value)
        if match and match["uri"] in _EXTENSIONS and 1 <= int(match["id"]) <= _MAX_ONE_BYTE_EXTENSION:
            lines.append(f"a=extmap:{match['id']} {match['uri']}")
    sources = (_SSRC.fullmatch(value) for value in audio.all("ssrc"))
    source = next((int(match["ssrc"]) for match in sources if match), None)
    if source is not None and source <= _MAX_SSRC:
        lines.append(f"a=ssrc:{source} cname:caller")
    return lines


def _data_lines(data: _Section) -> list[str]:
    port = data.first("sctp-port") or ""
    if not _NUMBER.fullmatch(port) or not 1 <= int(port) <= _MAX_PORT:
        raise InvalidSdpError("a=sctp-port is missing or malformed", field="a=sctp-port")
    size = data.first("max-message-size") or str(DEFAULT_MESSAGE_BYTES)
    if not _NUMBER.fullmatch(size):
        raise InvalidSdpError("a=max-message-size is malformed", field="a=max-message-size")
    # RFC 8841, section 6.1: zero means any size.
    max_message_bytes = min(int(size) or MAX_MESSAGE_BYTES, MAX_MESSAGE_BYTES)
    return [
        f"m=application 9 {data.protocol} webrtc-datachannel",
        "c=IN IP4 0.0.0.0",
        f"a=sctp-port:{port}",
        f"a=max-message-size:{max_message_bytes}",
    ]
