r"""The recogniser's vocabulary: from token numbers to words.

``tokenizer.bin`` holds one entry for each token number, in order: a length, then so many bytes. A length under 128
is one byte; else it is two, ``low | 128`` and ``high``, for ``high * 128 + low``. In the entries ``U+2581`` stands
for a space; tokens 3 to 258 are single bytes, so that a character may be spread over several tokens.
"""

import codecs
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from voice_agent.core.errors import ModelFileError

UNKNOWN_TOKEN: Final = 0
BEGIN_TOKEN: Final = 1
END_TOKEN: Final = 2
VOCABULARY_SIZE: Final = 32_768

_SPACE_MARK: Final = "\u2581"
_LONG_LENGTH: Final = 128
_SPECIAL: Final = re.compile(rb"<<ST_\d+>>|[\x00-\x1f\x7f]")
"""Markers that the model was trained with, and control bytes; neither is ever part of what was said."""
_WORD: Final = re.compile(r"\S+")


class Vocabulary:
    """The bytes of each token."""

    def __init__(self, entries: Iterable[bytes]) -> None:
        self._bytes = [
            b"" if number <= END_TOKEN or _SPECIAL.fullmatch(entry) else entry
            for number, entry in enumerate(entries)
        ]

    def __len__(self) -> int:
        return len(self._bytes)

    @classmethod
    def parse(cls, data: bytes) -> "Vocabulary":
        """Read the content of a ``tokenizer.bin``.

        Raises:
            ValueError: the data ends within an entry.
        """
        entries: list[bytes] = []
        position = 0
        while position < len(data):
            length = data[position]
            position += 1
            if length >= _LONG_LENGTH:
                if position == len(data):
                    raise ValueError(f"token {len(entries)} has half a length")
                length += (data[position] - 1) * _LONG_LENGTH
                position += 1
            entry = data[position : position + length]
            if len(entry) != length:
                raise ValueError(f"token {len(entries)} has {len(entry)} bytes of {length}")
            entries.append(entry)
            position += length
        return cls(entries)

    @classmethod
    def open(cls, path: Path, *, setting: str, remedy: str) -> "Vocabulary":
        """Read a ``tokenizer.bin``; ``setting`` and ``remedy`` complete the error.

        Raises:
            ModelFileError: the file can't be read, is damaged, or is not this model's.
        """
        try:
            vocabulary = cls.parse(path.read_bytes())
        except (OSError, ValueError) as error:
            raise ModelFileError(
                f"{setting}: {path} is no vocabulary: {error}; {remedy}", field=setting
            ) from error
        if len(vocabulary) != VOCABULARY_SIZE:
            raise ModelFileError(
                f"{setting}: {path} has {len(vocabulary)} tokens, the model {VOCABULARY_SIZE}; {remedy}",
                field=setting,
            )
        return vocabulary

    def words_of(self, tokens: Sequence[int]) -> tuple[list[str], tuple[int, ...]]:
        """Return the words of ``tokens``, and for each word the number of tokens up to and with it.

        A word is what stands between spaces, punctuation included. Bytes that are no UTF-8, and a character that
        is not complete yet, are left out.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("ignore")
        pieces: list[str] = []
        token_counts: list[int] = []
        for count, token in enumerate(tokens, start=1):
            piece = decoder.decode(self._bytes[token])
            pieces.append(piece)
            token_counts.extend([count] * len(piece))
        text = "".join(pieces).replace(_SPACE_MARK, " ")
        found = list(_WORD.finditer(text))
        return [word.group() for word in found], tuple(token_counts[word.end() - 1] for word in found)

    def text_of(self, tokens: Sequence[int]) -> str:
        """Return the words of ``tokens`` with one space between."""
        return " ".join(self.words_of(tokens)[0])
