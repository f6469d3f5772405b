"""Attacks over HTTP: what is sent, and the status and code of the answer, or "closed" for a connection that just ends."""

HOST = b"Host: 127.0.0.1\r\n"


def request(target: str, *headers: str, method: str = "GET", body: bytes = b"") -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


MALFORMED = [
    ("NUL bytes", b"\0\1\2\3\r\n\r\n", "400 bad_request"),
    ("TLS where HTTP is spoken", b"\x16\3\1\2\0\1\0\1\xfc\3\3" + bytes(20) + b"\r\n\r\n", "400 bad_request"),
    ("no Host", b"GET / HTTP/1.1\r\n\r\n", "400 bad_request"),
    ("two Hosts", b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n", "400 bad_request"),
    ("non-ASCII path", b"GET /caf\xc3\xa9 HTTP/1.1\r\n" + HOST + b"\r\n", "400 bad_request"),
    ("space before the colon", b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", "400 bad_request"),
    ("header without a colon", b"GET / HTTP/1.1\r\n" + HOST + b"nonsense\r\n\r\n", "400 bad_request"),
    ("NUL in a header", b"GET / HTTP/1.1\r\n" + HOST + b"X: a\0b\r\n\r\n", "400 bad_request"),
    ("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505 http_version"),
    ("HTTP/1.2", b"GET / HTTP/1.2\r\n" + HOST + b"\r\n", "505 http_version"),
    ("HTTP/9.9", b"GET / HTTP/9.9\r\n" + HOST + b"\r\n", "505 http_version"),
    (
        "one endless header",
        b"GET / HTTP/1.1\r\n" + HOST + b"Cookie: " + b"x" * 40_000,
        "431 headers_too_large",
    ),
    (
        "a flood of headers",
        b"GET / HTTP/1.1\r\n" + HOST + b"X: y\r\n" * 5000 + b"\r\n",
        "431 headers_too_large",
    ),
    ("an endless path", request("/" + "a" * 40_000), "431 headers_too_large"),
    ("slow headers", b"GET / HTTP/1.1\r\nHost: 127", "closed"),
    ("no headers at all", b"", "closed"),
]

SMUGGLING = [
    ("two lengths", "Content-Length: 1", "Content-Length: 2"),
    ("a list of lengths", "Content-Length: 1, 2"),
    ("a negative length", "Content-Length: -1"),
    ("a length with a sign", "Content-Length: +1"),
    ("a hexadecimal length", "Content-Length: 0x10"),
    ("a length of words", "Content-Length: many"),
]
SMUGGLED = [
    (
        name,
        request("/v1/drain", *headers, method="POST", body=b"GET /smuggled HTTP/1.1\r\n\r\n"),
        "400 bad_request",
    )
    for name, *headers in SMUGGLING
] + [
    (
        "gzip as transfer coding",
        request("/", "Transfer-Encoding: gzip", method="POST"),
        "501 transfer_coding",
    ),
    ("two codings", request("/", "Transfer-Encoding: chunked, gzip", method="POST"), "501 transfer_coding"),
    (
        "a chunk without a size",
        request("/", "Transfer-Encoding: chunked", method="POST", body=b"zz\r\n\r\n"),
        "400 bad_request",
    ),
    (
        "a body that is declared too large",
        request("/", "Content-Length: 65537", method="POST"),
        "413 body_too_large",
    ),
    (
        "a body that grows too large",
        request(
            "/v1/webrtc",
            "Transfer-Encoding: chunked",
            "Content-Type: application/sdp",
            "X-API-Key: {CALLER}",
            method="POST",
            body=(b"1000\r\n" + b"x" * 4096 + b"\r\n") * 20,
        ),
        "413 body_too_large",
    ),
]

TRAVERSAL = [
    (f"traversal {path}", request(path), "404 not_found")
    for path in (
        "/console/../app.py",
        "/console/..%2fapp.py",
        "/console/%2e%2e/app.py",
        "/console/..%5capp.py",
        "/console/....//app.py",
        "/console/%252e%252e%252fapp.py",
        "/console//etc/passwd",
        "/console/index.html%00.js",
        "/console/page.js/../../app.py",
        "/..%2f..%2fetc/passwd",
        "/static/../app.py",
        "/console/C:%5cboot.ini",
    )
]

ORIGINS = [
    (
        f"origin {origin}",
        request("/v1/sessions", f"Origin: {origin}", "Authorization: Bearer {KEY}"),
        "403 forbidden_origin",
    )
    for origin in (
        "https://evil.example.com",
        "null",
        "https://app.example.org.evil.com",
        "https://evil-app.example.org",
        "http://app.example.org",
        "https://app.example.org:444",
        "https://app.example.org@evil.com",
        "https://app.example.org, https://evil.com",
    )
]

CREDENTIALS = [
    ("no key", request("/v1/sessions"), "401 unauthenticated"),
    ("a wrong key", request("/v1/sessions", "Authorization: Bearer {WRONG}"), "401 unauthenticated"),
    (
        "a key of somebody unknown",
        request("/v1/sessions", "X-API-Key: va_nobody_" + "0" * 64),
        "401 unauthenticated",
    ),
    ("a key in capitals", request("/v1/sessions", "X-API-Key: {UPPER}"), "401 unauthenticated"),
    ("half a key", request("/v1/sessions", "X-API-Key: {HALF}"), "401 unauthenticated"),
    ("a key and more", request("/v1/sessions", "X-API-Key: {KEY}x"), "401 unauthenticated"),
    ("an empty key", request("/v1/sessions", "X-API-Key: "), "401 unauthenticated"),
    ("a non-ASCII key", request("/v1/sessions", "X-API-Key: k\xe9y"), "401 unauthenticated"),
    ("a key as a password", request("/v1/sessions", "Authorization: Basic {KEY}"), "401 unauthenticated"),
    ("a key in the address", request("/v1/sessions?key={KEY}&api_key={KEY}"), "401 unauthenticated"),
    ("a key in a cookie", request("/v1/sessions", "Cookie: key={KEY}"), "401 unauthenticated"),
    (
        "two keys",
        request("/v1/sessions", "Authorization: Bearer {KEY}", "X-API-Key: {KEY}"),
        "400 ambiguous_credentials",
    ),
    ("a caller who drains", request("/v1/drain", "X-API-Key: {CALLER}", method="POST"), "403 forbidden"),
    ("a caller who reads sessions", request("/v1/sessions", "X-API-Key: {CALLER}"), "403 forbidden"),
    (
        "a forged X-Forwarded-For",
        request("/v1/sessions", "X-Forwarded-For: 203.0.113.66"),
        "401 unauthenticated",
    ),
    ("a forged Forwarded", request("/v1/sessions", "Forwarded: for=203.0.113.66"), "401 unauthenticated"),
    ("an unknown filter", request("/v1/sessions?tenant=*", "X-API-Key: {KEY}"), "400 invalid_field"),
    ("a filter twice", request("/v1/sessions?limit=1&limit=2", "X-API-Key: {KEY}"), "400 invalid_field"),
    ("a wrong method", request("/healthz", method="DELETE"), "405 method_not_allowed"),
    ("a made-up method", request("/healthz", method="BREW"), "405 method_not_allowed"),
    ("a call without an upgrade", request("/v1/ws", "X-API-Key: {CALLER}"), "426 upgrade_required"),
]


def offer(body: bytes, content_type: str = "application/sdp", query: str = "") -> bytes:
    return request(
        f"/v1/webrtc{query}",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        "X-API-Key: {CALLER}",
        method="POST",
        body=body,
    )


RIGHT = "\r\n".join(
    [
        "v=0", "o=- 1 1 IN IP4 0.0.0.0", "s=-", "t=0 0", "m=audio 9 UDP/TLS/RTP/SAVPF 111", "a=mid:0", "a=sendonly",
        "a=rtcp-mux", "a=rtpmap:111 opus/48000/2", "a=ice-ufrag:abcd", "a=ice-pwd:0123456789012345678901",
        "a=fingerprint:sha-256 " + ":".join(["AB"] * 32), "a=setup:actpass", "",
    ]
)  # fmt: skip
SIGNALLING = [
    ("an empty offer", offer(b""), "400 invalid_sdp"),
    ("a garbage offer", offer(b"\xde\xad\xbe\xef"), "400 invalid_sdp"),
    ("an offer of JSON", offer(b"{}"), "400 invalid_sdp"),
    ("an offer with NUL", offer(RIGHT.replace("s=-", "s=\0").encode()), "400 invalid_sdp"),
    ("an offer over its limit", offer(RIGHT.encode() + b"a=x\r\n" * 8000), "413 body_too_large"),
    ("an offer of another type", offer(RIGHT.encode(), "text/plain"), "415 unsupported_content_type"),
    ("plain RTP", offer(RIGHT.replace("UDP/TLS/RTP/SAVPF", "RTP/AVP").encode()), "422 unsupported_media"),
    ("no multiplexing", offer(RIGHT.replace("a=rtcp-mux\r\n", "").encode()), "422 unsupported_media"),
    ("a weak fingerprint", offer(RIGHT.replace("sha-256", "sha-1").encode()), "422 unsupported_media"),
    ("no codec in common", offer(RIGHT.replace("opus/48000/2", "PCMU/8000").encode()), "422 no_common_codec"),
    ("an unknown option", offer(RIGHT.encode(), query="?servers=evil"), "400 invalid_field"),
    (
        "too many candidates",
        offer(
            RIGHT.encode()
            + b"".join(b"a=candidate:%d 1 udp 1 192.0.2.%d 9 typ host\r\n" % (n, n) for n in range(1, 50))
        ),
        "422 too_many_candidates",
    ),
    (
        "a stranger's call",
        request("/v1/webrtc/" + "x" * 32, "X-API-Key: {CALLER}", method="DELETE"),
        "404 not_found",
    ),
]

ATTACKS = [*MALFORMED, *SMUGGLED, *TRAVERSAL, *ORIGINS, *CREDENTIALS, *SIGNALLING]
