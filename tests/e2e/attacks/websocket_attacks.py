"""Attacks on an open WebSocket: the frames that are sent, and the close code (RFC 6455, section 7.4) that answers."""


def frame(
    opcode: int, body: bytes = b"", *, first: int = 0x80, masked: bool = True, length: int | None = None
) -> bytes:
    size = len(body) if length is None else length
    mark = 0x80 if masked else 0
    if size < 126:
        head = bytes([first | opcode, mark | size])
    elif size < 65_536:
        head = bytes([first | opcode, mark | 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([first | opcode, mark | 127]) + size.to_bytes(8, "big")
    return head + (b"\0\0\0\0" if masked else b"") + body


TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
ATTACKS = [
    ("text that is not UTF-8", frame(TEXT, b"\xc3\x28"), 1007),
    ("half a character", frame(TEXT, b"\xe2\x82"), 1007),
    ("a surrogate in UTF-8", frame(TEXT, b"\xed\xa0\x80"), 1007),
    ("an overlong form", frame(TEXT, b"\xc0\xaf"), 1007),
    ("reserved opcode 3", frame(3), 1002),
    ("reserved opcode 15", frame(15), 1002),
    ("RSV1 without an extension: a compressed frame", frame(TEXT, b"\xaa\x56\x4a", first=0xC0), 1002),
    ("RSV2", frame(TEXT, b"x", first=0xA0), 1002),
    ("RSV3", frame(TEXT, b"x", first=0x90), 1002),
    ("an unmasked frame", frame(TEXT, b"x", masked=False), 1002),
    ("a ping in pieces", frame(PING, b"x", first=0), 1002),
    ("a ping that is too long", frame(PING, b"x" * 126), 1002),
    ("a close in pieces", frame(CLOSE, b"\3\xe8", first=0), 1002),
    ("a close code of one byte", frame(CLOSE, b"\3"), 1002),
    ("close code 999", frame(CLOSE, (999).to_bytes(2, "big")), 1002),
    ("close code 1005", frame(CLOSE, (1005).to_bytes(2, "big")), 1002),
    ("close code 65535", frame(CLOSE, b"\xff\xff"), 1002),
    ("a continuation of nothing", frame(0, b"x"), 1002),
    ("a message inside a message", frame(TEXT, b"x", first=0) + frame(TEXT, b"y"), 1002),
    ("a frame of 2^63 bytes", frame(BINARY, length=2**63 - 1), 1009),
    ("a frame of 16 MiB", frame(BINARY, length=2**24), 1009),
    (
        "a message too large in pieces",
        frame(BINARY, b"x" * 60_000, first=0) + frame(0, b"x" * 60_000, first=0) * 9,
        1009,
    ),
    ("a text too large", frame(TEXT, b"x" * 300_000), 1009),
    ("a flood of pings", frame(PING, b"x") * 500, 1008),
    ("a flood of pongs", frame(PONG, b"x") * 500, 1008),
    ("a flood of empty pieces", frame(TEXT, first=0) + frame(0, first=0) * 500, 1008),
    ("ten messages of another protocol", frame(TEXT, b'{"type":"hello"}') * 10, 1008),
    ("a second of messages in no time", frame(TEXT, b'{"type":"ping"}') * 10_000, 4429),
    ("audio that is half a sample", frame(BINARY, b"\0"), 4400),
    ("audio of a format that is none", frame(TEXT, b'{"type":"start","encoding":"mp3"}'), 4415),
]
