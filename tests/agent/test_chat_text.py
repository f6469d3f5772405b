"""From tokens to what is said: sentences as early as they are sure, however the text is cut; markup and thoughts left out."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_agent.agent.llm.sentences import FIRST_CLAUSE_CHARS, MAX_SENTENCE_CHARS, SentenceSplitter, is_whole
from voice_agent.agent.llm.spoken import Spoken, ThoughtFilter


def split(text: str, *cuts: int) -> list[str]:
    """Feed a text in pieces."""
    splitter = SentenceSplitter()
    places = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    sentences: list[str] = []
    for begin, end in pairwise(places):
        sentences += splitter.feed(text[begin:end])
    return sentences + splitter.flush()


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Hello there. How are you?", ["Hello there.", "How are you?"]),
        ("It is 42.5 grams. Yes!", ["It is 42.5 grams.", "Yes!"]),
        ("Take gold, e.g. a ring, i.e. yours.", ["Take gold, e.g. a ring, i.e. yours."]),
        (
            "Mr. Rao and Dr. J. Smith came. I saw them.",
            ["Mr. Rao and Dr. J. Smith came.", "I saw them."],
        ),
        ("It was I. You know.", ["It was I.", "You know."]),
        ("Take No. 5 please. No. I can't.", ["Take No. 5 please.", "No.", "I can't."]),
        ("We close at 5 p.m. on Sundays. Rings etc. Come!", ["We close at 5 p.m. on Sundays.", "Rings etc.", "Come!"]),
        ("Well... maybe. Well... Maybe.", ["Well... maybe.", "Well...", "Maybe."]),
        ('She said "Go." Then (at last!) it ended.', ['She said "Go."', "Then (at last!)", "it ended."]),
        ("Really?! Yes…no. Rs. 500 it is.", ["Really?!", "Yes…no.", "Rs. 500 it is."]),
        ("1. One\n2. Two\n\nThree", ["1. One", "2. Two", "Three"]),
        ("See example.com. Bye.", ["See example.com.", "Bye."]),
        ("नमस्ते। आप कैसे हैं।", ["नमस्ते।", "आप कैसे हैं।"]),
        ("", []),
        ("   \n \n", []),
    ],
)  # fmt: skip
def test_where_sentences_end(text: str, sentences: list[str]) -> None:
    """At a full stop that ends one, and not at those of numbers, abbreviations, initials and addresses."""
    assert split(text) == sentences
    assert split(text, *range(len(text))) == sentences


def test_a_sentence_is_given_as_soon_as_it_is_sure() -> None:
    """With the blank behind it, before anything of the next one; where it depends on what follows, then."""
    splitter = SentenceSplitter()
    assert splitter.feed("Hello") == []
    assert splitter.feed(".") == []
    assert splitter.feed(" ") == ["Hello."]
    assert splitter.feed("At 5 p.m. ") == []
    assert splitter.feed("W") == ["At 5 p.m."]
    assert splitter.flush() == ["W"]


def test_of_a_long_first_sentence_the_first_clause_goes_ahead() -> None:
    """Only of the first, and only if it is long enough to be worth it."""
    first = "This is a beginning that goes on for long,"
    assert len(first) > FIRST_CLAUSE_CHARS
    rest = "and then it ends after all, as all things do, in the end, and for ever."
    assert split(f"{first} {rest} {first} {rest}") == [first, rest, f"{first} {rest}"]
    assert split("Yes, of course, sir.") == ["Yes, of course, sir."]
    assert split("It costs about as much as 12,45,000 rupees, all in all.") == [
        "It costs about as much as 12,45,000 rupees,", "all in all.",
    ]  # fmt: skip


def test_what_has_no_end_is_cut() -> None:
    """Behind a clause or a word, or in the middle of what is neither."""
    words = split("Well. " + "word " * 200)
    assert max(map(len, words)) <= MAX_SENTENCE_CHARS
    assert set(" ".join(words[1:]).split()) == {"word"}
    assert max(map(len, split("word " * 100 + "end. Next."))) <= MAX_SENTENCE_CHARS
    assert [len(piece) for piece in split("x" * 700)] == [280, 280, 140]


PIECES = st.sampled_from(
    [*"abI.!?…,;: \n\t\"')*1", "e.g.", "No. ", "Mr. ", "etc. ", "\r", "।", "é", "word " * 30]
)
TEXT = st.lists(PIECES, max_size=60).map(lambda pieces: "".join(pieces)[:900])


@given(TEXT, st.lists(st.integers(0, 1000), max_size=12))
def test_it_does_not_matter_how_the_text_is_cut_and_no_letter_is_lost(text: str, cuts: list[int]) -> None:
    """Sentences are the same for any tokens; together they are the text, but for blanks."""
    sentences = split(text)
    assert split(text, *cuts) == sentences
    assert split(text, *range(len(text))) == sentences
    assert "".join("".join(sentences).split()) == "".join(text.split())
    assert all(0 < len(sentence) <= MAX_SENTENCE_CHARS for sentence in sentences[:-1])


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("**Bold** and *soft* and `code`, ~~gone~~.", "Bold and soft and code, gone."),
        ("# A heading", "A heading"),
        ("- an item with [a link](https://example.com/x)", "an item with a link"),
        ("1. The first thing", "1. The first thing"),
        ("| gold | 40 g |", "gold, 40 g"),
        ("|---|:--:|", ""),
        ("***", ""),
        ("Done 😀!", "Done!"),
        ("👍", ""),
        ("snake_case and 2 * 3 stay", "snake_case and 2 * 3 stay"),
        ("_soft_ words", "soft words"),
        ("**Half of a pair", "Half of a pair"),
        ("20 °C costs ₹1,20,000 at 10.5 %", "20 °C costs ₹1,20,000 at 10.5 %"),
    ],
)
def test_markup_is_not_said(written: str, said: str) -> None:
    """What it marks is; what has no words is nothing."""
    assert Spoken().of(written) == said


def test_code_is_not_said() -> None:
    """From fence to fence; what comes behind is said again."""
    spoken = Spoken()
    sentences = split("Like so:\n```python\nx = 1\nprint(x)\n```\nThat is all.")
    assert [words for sentence in sentences if (words := spoken.of(sentence))] == ["Like so:", "That is all."]


@given(st.text(), st.lists(st.integers(0, 500), max_size=5))
def test_whatever_is_written_something_plain_comes_of_it(text: str, cuts: list[int]) -> None:
    """No text makes it fail; what is said has letters or digits."""
    spoken = Spoken()
    for sentence in split(text, *cuts):
        words = spoken.of(sentence)
        assert not words or any(character.isalnum() for character in words)
        assert len(words) <= len(sentence) + sentence.count("|")


@given(st.lists(st.sampled_from(["<think>", "</think>", "<", "th", "ink>", "Hello", " ", "</"]), max_size=12))
def test_thoughts_are_left_out_however_they_are_cut(pieces: list[str]) -> None:
    """The same for letter by letter as for the whole; a tag that isn't one is said."""
    text = "".join(pieces)

    def filtered(parts: list[str]) -> str:
        thoughts = ThoughtFilter()
        return "".join(thoughts.feed(part) for part in parts) + thoughts.flush()

    assert filtered(list(text)) == filtered([text]) == filtered(pieces)
    assert "<think>" not in filtered([text])


def test_a_model_that_thinks_aloud_is_not_heard_thinking() -> None:
    """Only its answer is."""
    thoughts = ThoughtFilter()
    assert thoughts.feed("<thi") + thoughts.feed("nk>Hm. A < B</think>It is") + thoughts.feed(" 5 < 6.") == (
        "It is 5 < 6."
    )


@pytest.mark.parametrize(
    ("sentence", "whole"), [("Yes.", True), ('"Yes."', True), ("Yes", False), ("", False)]
)
def test_what_is_whole(sentence: str, whole: bool) -> None:
    """A mark at its end, or behind it a quote."""
    assert is_whole(sentence) is whole
