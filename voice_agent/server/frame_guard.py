"""FrameGuard: refuses WebSocket frames by what their header declares, before a byte of them is kept; no I/O."""

from typing import Any

import trio
from wsproto.extensions import Extension
from wsproto.frame_protocol import CloseReason, FrameDecoder, FrameProtocol, Opcode, RsvBits

_NO_RSV = RsvBits(rsv1=False, rsv2=False, rsv3=False)


class FrameGuard(Extension):
    """Sees every frame that wsproto parses, as an extension that is negotiated with nobody.

    Messages over the limit of their kind (bytes, all fragments together) fail with 1009, too many control frames or
    empty fragments within a second with 1008.
    """

    name = "voice-agent-frame-guard"

    def __init__(self, *, max_binary_bytes: int, max_text_bytes: int, max_control_frames: int) -> None:
        self._limits = {Opcode.BINARY: max_binary_bytes, Opcode.TEXT: max_text_bytes}
        self._max_message_bytes = max_binary_bytes
        self._message_bytes = 0
        self._max_control_frames = max_control_frames
        self._control_frames = 0
        self._second_began_at = 0.0

    def enabled(self) -> bool:
        """Whether wsproto asks us: always."""
        return True

    def offer(self) -> bool:
        """Whether a client would offer it: never."""
        return False

    def frame_inbound_header(
        self, _proto: FrameDecoder | FrameProtocol, opcode: Opcode, _rsv: RsvBits, payload_length: int
    ) -> CloseReason | RsvBits:
        """Check the declared length. Nothing is counted here: a header in two TCP segments comes twice."""
        if not opcode.iscontrol():
            limit = self._limits.get(opcode, self._max_message_bytes)
            if self._message_bytes + payload_length > limit:
                return CloseReason.MESSAGE_TOO_BIG
            self._max_message_bytes = limit
        return _NO_RSV

    def frame_inbound_complete(self, proto: Any, fin: bool) -> CloseReason | None:
        """Count a frame that has been received to its end."""
        header = proto.header
        is_control = header.opcode.iscontrol()
        if not is_control:
            self._message_bytes = 0 if fin else self._message_bytes + header.payload_len
        if (is_control or (header.payload_len == 0 and not fin)) and self._is_flood():
            return CloseReason.POLICY_VIOLATION
        return None

    def _is_flood(self) -> bool:
        now = trio.current_time()
        if now - self._second_began_at >= 1.0:
            self._second_began_at, self._control_frames = now, 0
        self._control_frames += 1
        return self._control_frames > self._max_control_frames
