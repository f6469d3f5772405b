"""SRT and WebVTT."""

import re

from hypothesis import given
from hypothesis import strategies as st

from voice_agent.cli.subtitles import MAX_CUE_LINES, MAX_LINE_CHARACTERS, Cue, make_cues, to_srt, to_vtt
from voice_agent.core.transcripts import TranscriptResult, Word


def final(text: str, start: float, end: float, *, words: tuple[Word, ...] = ()) -> TranscriptResult:
    """Make a final of utterance 1."""
    return TranscriptResult(text=text, is_final=True, start=start, end=end, utterance=1, words=words)


FINALS = [
    final("It was the best of times.", 0.32, 2.5),
    final("It was the worst of times.", 3661.0, 3662.0405),
]


def test_srt_is_what_players_expect() -> None:
    """Numbered cues, a comma before the milliseconds, a blank line between, hours that roll over."""
    assert to_srt(FINALS) == (
        "1\n00:00:00,320 --> 00:00:02,500\nIt was the best of times.\n"
        "\n"
        "2\n01:01:01,000 --> 01:01:02,040\nIt was the worst of times.\n"
    )


def test_vtt_is_what_the_standard_asks_for() -> None:
    """The signature, a blank line, a point before the milliseconds."""
    assert to_vtt(FINALS) == (
        "WEBVTT\n"
        "\n"
        "00:00:00.320 --> 00:00:02.500\nIt was the best of times.\n"
        "\n"
        "01:01:01.000 --> 01:01:02.040\nIt was the worst of times.\n"
    )


def test_no_finals_give_an_empty_srt_and_a_bare_signature() -> None:
    """An hour of silence is still a valid file."""
    assert to_srt([]) == ""
    assert to_vtt([]) == "WEBVTT\n"


def test_a_time_just_below_a_minute_carries_over() -> None:
    """Rounding happens once, in whole milliseconds: 59.9996 s is a minute, not 59 s and 1000 ms."""
    assert "00:01:00,000 --> 00:01:01,000" in to_srt([final("Now.", 59.9996, 61.0)])


def test_more_than_a_hundred_hours_stay_readable() -> None:
    """Hours may have three digits (WebVTT, section 4.1)."""
    assert "100:00:00.000 --> 100:00:01.000" in to_vtt([final("Still here.", 360_000, 360_001)])


def test_vtt_escapes_what_would_be_markup() -> None:
    """A caption is text: no tags, no character references, no arrow."""
    assert "a &lt;b&gt; &amp;amp; --&gt; c" in to_vtt([final("a <b> &amp; --> c", 0, 1)])


def test_srt_text_can_not_be_taken_for_a_time_line() -> None:
    """SRT knows no escapes; its arrow must not stand in a text."""
    assert to_srt([final("a --> b", 0, 1)]).count("-->") == 1


def test_line_breaks_and_control_characters_can_not_end_a_cue() -> None:
    """A blank line inside a text would cut the cue in two."""
    cues = make_cues([final("one\n\ntwo\r\n\tthree\x00four", 0, 1)])
    assert [cue.lines for cue in cues] == [("one two three four",)]


def test_a_text_of_blanks_gives_no_cue() -> None:
    """An empty cue would only flicker."""
    assert make_cues([final("  \n ", 0, 1)]) == []


def test_a_short_text_is_one_line_and_a_longer_one_two() -> None:
    """Lines break between words, at 42 characters."""
    text = "It was the age of wisdom, it was the age of foolishness."
    assert make_cues([final(text, 0, 2)]) == [
        Cue(0, 2000, ("It was the age of wisdom, it was the age", "of foolishness."))
    ]


def test_a_long_final_is_shared_out_over_cues_by_its_characters() -> None:
    """Without word times, each cue gets the share of the time that it has of the characters."""
    text = " ".join(["abcdefghi"] * 16)  # four words a line, four lines, two cues of equal size
    cues = make_cues([final(text, 10.0, 14.0)])
    assert [(cue.start_ms, cue.end_ms) for cue in cues] == [(10_000, 12_000), (12_000, 14_000)]
    assert all(len(cue.lines) == 2 for cue in cues)


def test_a_long_final_is_shared_out_by_its_words_where_they_are_placed() -> None:
    """The engine's own times are better than a share of the characters."""
    texts = ["abcdefghi"] * 16
    words = tuple(Word(text, 1.0 + 0.1 * i, 1.05 + 0.1 * i, 1.0) for i, text in enumerate(texts))
    cues = make_cues([final(" ".join(texts), 0.0, 10.0, words=words)])
    assert [(cue.start_ms, cue.end_ms) for cue in cues] == [(1000, 1750), (1800, 2550)]


def test_words_that_do_not_match_the_text_are_not_trusted() -> None:
    """A word more or less would shift every cue after it."""
    text = " ".join(["abcdefghi"] * 16)
    cues = make_cues([final(text, 0.0, 4.0, words=(Word("other", 3.0, 3.5, 1.0),))])
    assert [(cue.start_ms, cue.end_ms) for cue in cues] == [(0, 2000), (2000, 4000)]


def test_overlapping_finals_give_cues_in_a_row() -> None:
    """A pre-roll may reach into the utterance before; on the screen one follows the other."""
    cues = make_cues([final("One.", 0.0, 2.0), final("Two.", 1.5, 3.0), final("Three.", 0.5, 0.6)])
    assert [(cue.start_ms, cue.end_ms) for cue in cues] == [(0, 2000), (2000, 3000), (3000, 3001)]


def test_a_final_without_length_lasts_a_millisecond() -> None:
    """A cue must end after it starts (WebVTT, section 4.1)."""
    assert make_cues([final("Hm.", 1.0, 1.0)]) == [Cue(1000, 1001, ("Hm.",))]


texts = st.text(st.characters(codec="utf-8"), max_size=300)
spans = st.tuples(st.floats(0, 1e5), st.floats(0, 100))


@given(st.lists(st.tuples(texts, spans), max_size=6))
def test_whatever_was_heard_the_file_stays_well_formed(heard: list[tuple[str, tuple[float, float]]]) -> None:
    """Cues run forward without overlap, keep to two lines of 42, and only time lines hold an arrow."""
    finals = [final(text, start, start + length) for text, (start, length) in heard]
    cues = make_cues(finals)
    at_ms = 0
    for cue in cues:
        assert at_ms <= cue.start_ms < cue.end_ms
        at_ms = cue.end_ms
        assert 1 <= len(cue.lines) <= MAX_CUE_LINES
        assert all(line.strip() and len(line) <= MAX_LINE_CHARACTERS for line in cue.lines)
    time_line = re.compile(r"^\d{2,}:\d\d:\d\d[.,]\d{3} --> \d{2,}:\d\d:\d\d[.,]\d{3}$")
    for text in (to_srt(finals), to_vtt(finals)):
        arrows = [line for line in text.split("\n") if "-->" in line]
        assert len(arrows) == len(cues)
        assert all(time_line.match(line) for line in arrows)


def test_every_word_is_shown_once() -> None:
    """Cutting loses nothing and doubles nothing."""
    words = [f"word{i}" for i in range(200)]
    cues = make_cues([final(" ".join(words), 0, 60)])
    assert [word for cue in cues for line in cue.lines for word in line.split()] == words
