"""What a caller can ask for beside sending audio: a closed union of small frozen classes.

A transport decodes these from its own wire. ``position_seconds`` is where in the call's audio the command stands,
because a flush means the audio that came before it.
"""

from enum import StrEnum

import attrs

from voice_agent.core.formats import AudioFormat


class Microphone(StrEnum):
    """What the caller's side has done to its sound already."""

    PROCESSED = "processed"
    """Echo, noise and level are taken care of, as in a browser or a telephone; or there is no loudspeaker to be heard."""
    RAW = "raw"
    """Nothing: an open microphone beside a loudspeaker."""


@attrs.frozen(kw_only=True)
class CallOptions:
    """What a caller chooses for the call."""

    language: str = "en"
    partials: bool = True
    microphone: Microphone = Microphone.PROCESSED


@attrs.frozen(kw_only=True)
class Resume:
    """Which session a caller goes on with, by what right, and how much of it has reached the caller.

    ``last_seq`` is the highest number of a message that came, 0 for none. ``audio_ms`` is where in the session's audio
    that stands which the caller sends next; None where it is what the server has heard.
    """

    session_id: str
    token: str = attrs.field(repr=False)
    last_seq: int = 0
    audio_ms: int | None = None


@attrs.frozen(kw_only=True)
class Start:
    """The audio format and the options are settled; comes once, before any audio."""

    audio_format: AudioFormat = attrs.field(factory=AudioFormat)
    options: CallOptions = attrs.field(factory=CallOptions)
    resume: Resume | None = None
    """None begins a new session."""


@attrs.frozen(kw_only=True)
class TypedText:
    """The caller wrote instead of speaking."""

    text: str
    position_seconds: float = 0.0


@attrs.frozen(kw_only=True)
class Flush:
    """End the current utterance here and give its final."""

    position_seconds: float = 0.0


@attrs.frozen(kw_only=True)
class Ping:
    """Answer with a pong of the same id."""

    id: str | None = None


@attrs.frozen(kw_only=True)
class Stop:
    """No more audio comes: finish what was said, then close."""


Command = Start | TypedText | Flush | Ping | Stop
