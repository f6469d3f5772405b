"""What the command line says about a call, as click parameter types: addresses and headerless formats. Pure."""

from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import click

from voice_agent.core.errors import UnsupportedFormatError
from voice_agent.core.formats import AudioFormat

CALL_PATH: Final = "/v1/ws"
RAW_DEFAULT_RATE: Final = 16_000


class CallUrl(click.ParamType[str]):
    """A WebSocket address; without a path it means the protocol's own."""

    name = "url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the address, or fail with what is wrong about it."""
        text = str(value)
        if not text.isascii() or not text.isprintable() or " " in text:
            self.fail(f"{text!r} holds characters that an address can't have", param, ctx)
        try:
            parts = urlsplit(text)
            is_complete = bool(parts.hostname) and parts.port != 0
        except ValueError as error:
            self.fail(f"{text!r}: {error}", param, ctx)
        if parts.scheme not in ("ws", "wss"):
            self.fail(f"{text!r} does not begin with ws:// or wss://", param, ctx)
        if not is_complete:
            self.fail(f"{text!r} names no host or port", param, ctx)
        if parts.username is not None:
            self.fail("a name and password in the address would not be sent", param, ctx)
        return urlunsplit(parts._replace(path=parts.path if parts.path not in ("", "/") else CALL_PATH))


class RawFormat(click.ParamType[AudioFormat]):
    """The format of headerless files: ``pcm_s16le:16000:1``; rate and channels may be left out."""

    name = "encoding[:rate[:channels]]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> AudioFormat:
        """Return the format, or fail with what is allowed."""
        encoding, *numbers = str(value).split(":")
        if len(numbers) > 2 or not all(number.isdecimal() for number in numbers):  # noqa: PLR2004
            self.fail(f"{value!r} is not like pcm_s16le:16000:1", param, ctx)
        rate, channels = [*map(int, numbers), *(RAW_DEFAULT_RATE, 1)[len(numbers) :]]
        try:
            return AudioFormat.parse(encoding, rate, channels)
        except UnsupportedFormatError as error:
            self.fail(error.message, param, ctx)
