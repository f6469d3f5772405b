"""From token numbers to words."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_agent.core.errors import ModelFileError
from voice_agent.settings.schema import Settings
from voice_agent.speech.models import find_models
from voice_agent.speech.tokens import BEGIN_TOKEN, END_TOKEN, VOCABULARY_SIZE, Vocabulary

MARK = "\u2581".encode()
BYTES = [bytes([value]) for value in range(256)]
"""Tokens 3 to 258."""
PIECES = [MARK + b"he", b"llo", b",", MARK + b"wor", b"ld", MARK, MARK + MARK, "é".encode(), b"<<ST_7>>"]
SMALL = Vocabulary([b"<unk>", b"<s>", b"</s>", *BYTES, *PIECES])
HE, LLO, COMMA, WOR, LD, SPACE, SPACES, E_ACUTE, MARKER = range(259, 259 + len(PIECES))


def byte(value: int) -> int:
    """Return the token of a single byte."""
    return 3 + value


def encoded(entries: list[bytes]) -> bytes:
    """Write a vocabulary file as the model's authors do."""
    data = b""
    for entry in entries:
        size = len(entry)
        data += bytes([size]) if size < 128 else bytes([128 + size % 128, size // 128])
        data += entry
    return data


@pytest.fixture(scope="module")
def real() -> Vocabulary:
    """The vocabulary of the installed model."""
    [path] = [file.path for file in find_models(Settings()) if file.path.name == "tokenizer.bin"]
    return Vocabulary.open(path, setting="recogniser.model_dir", remedy="")


@pytest.mark.parametrize("size", [0, 1, 127, 128, 129, 255, 256, 300, 1000])
def test_entries_of_every_length_are_read(size: int) -> None:
    """One-byte and two-byte lengths meet at 128 without a gap."""
    vocabulary = Vocabulary.parse(encoded([b"", b"", b"", b"x" * size, b"next"]))
    assert vocabulary.text_of([3]) == "x" * size
    assert vocabulary.text_of([4]) == "next"


@pytest.mark.parametrize("data", [b"\x05abc", b"\x01", b"\x81", b"\x80\x01" + b"x" * 127])
def test_a_vocabulary_cut_short_is_refused(data: bytes) -> None:
    """A file that ends within an entry is an error, not a smaller vocabulary."""
    with pytest.raises(ValueError, match="token 0 has"):
        Vocabulary.parse(data)


def test_words_and_how_many_tokens_each_took() -> None:
    """Punctuation belongs to its word; a space belongs to the word after it."""
    assert SMALL.words_of([HE, LLO, COMMA, WOR, LD]) == (["hello,", "world"], (3, 5))
    assert SMALL.words_of([HE, LLO, SPACE, SPACES, WOR]) == (["hello", "wor"], (2, 5))


def test_special_tokens_never_show() -> None:
    """Begin, end, unknown, the markers and control bytes are no text."""
    tokens = [BEGIN_TOKEN, HE, MARKER, LLO, 0, byte(0), byte(7), byte(127), END_TOKEN]
    assert SMALL.words_of(tokens) == (["hello"], (4,))


def test_a_character_spread_over_tokens() -> None:
    """Byte tokens make a character when the last of them has come, and nothing before."""
    first, second = "ü".encode()
    assert SMALL.text_of([HE, byte(first)]) == "he"
    assert SMALL.words_of([HE, byte(first), byte(second)]) == (["heü"], (3,))


def test_bytes_that_are_no_text_are_left_out() -> None:
    """Invalid UTF-8 costs nothing but itself."""
    assert SMALL.text_of([HE, byte(0xFF), byte(0xC3), LLO, E_ACUTE]) == "helloé"


def test_nothing_is_nothing() -> None:
    """No tokens, no words."""
    assert SMALL.words_of([]) == ([], ())
    assert SMALL.text_of([SPACE]) == ""


@given(st.lists(st.integers(0, len(SMALL) - 1), max_size=40))
def test_the_tokens_up_to_a_word_spell_the_text_up_to_it(tokens: list[int]) -> None:
    """A prefix cut at a word's end gives exactly the words so far: that is what makes a prefix stable."""
    words, ends = SMALL.words_of(tokens)
    assert len(words) == len(ends)
    for count, end in enumerate(ends, start=1):
        assert SMALL.text_of(tokens[:end]) == " ".join(words[:count])


def test_the_installed_vocabulary(real: Vocabulary) -> None:
    """The real file has an entry for every number that the decoder can give."""
    assert len(real) == VOCABULARY_SIZE
    assert real.text_of([0, 1, 2, 32_000, 32_767]) == ""
    assert real.text_of([byte(ord("h")), byte(ord("i"))]) == "hi"


@pytest.mark.parametrize("content", [b"", b"\x05ab", encoded([b"x"] * 10)])
def test_a_wrong_file_is_named_with_its_setting(tmp_path: Path, content: bytes) -> None:
    """Empty, cut short or of another size: the error says which setting led there and what to do."""
    path = tmp_path / "tokenizer.bin"
    path.write_bytes(content)
    with pytest.raises(
        ModelFileError, match=r"recogniser\.model_dir: .*tokenizer\.bin .*; do this"
    ) as caught:
        Vocabulary.open(path, setting="recogniser.model_dir", remedy="do this")
    assert caught.value.field == "recogniser.model_dir"


def test_a_missing_file_is_an_operators_error(tmp_path: Path) -> None:
    """The system's exception does not leak."""
    with pytest.raises(ModelFileError, match="is no vocabulary"):
        Vocabulary.open(tmp_path / "gone", setting="recogniser.model_dir", remedy="")
