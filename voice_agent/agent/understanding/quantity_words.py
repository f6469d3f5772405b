"""The words of quantities: units, what recognisers make of them, and what may stand around a number."""

from decimal import Decimal
from typing import Final

MAX_GRAMS: Final = Decimal(20_000)
"""Twenty kilograms; what is heavier was misheard."""
MAX_RUPEES: Final = Decimal(10**10)
MAX_RATE: Final = Decimal(100)
MONTHS_OF_A_YEAR: Final = 12

GRAM: Final = Decimal(1)
TOLA: Final = Decimal("11.6638038")
SOVEREIGN: Final = Decimal(8)
GRAMS_OF: Final = {
    **dict.fromkeys(("gram", "grams", "gramme", "grammes", "gm", "gms", "g", "grm", "grms"), GRAM),
    # What recognisers make of grams.
    **dict.fromkeys(("graham", "grahams", "gramps", "crams", "grand's", "grammar", "grants"), GRAM),
    **dict.fromkeys(("milligram", "milligrams", "mg"), Decimal("0.001")),
    **dict.fromkeys(("kilo", "kilos", "kilogram", "kilograms", "kg", "kgs"), Decimal(1000)),
    # Three eighths of a troy ounce of 31.1034768 g; a bhori is the tola of Bengal.
    **dict.fromkeys(("tola", "tolas", "tolah", "tolla", "tollas", "bhori", "bhoris"), TOLA),
    # The jewellers' sovereign (pavan) of South India, not the British coin of 7.98805 g.
    **dict.fromkeys(("sovereign", "sovereigns", "pavan", "pavans", "pawan", "savaran"), SOVEREIGN),
}
"""Units of weight in grams. The dialogue repeats grams, so that who means another tola can say so."""

KARAT_WORDS: Final = frozenset(
    [
        "carat",
        "carats",
        "karat",
        "karats",
        "kt",
        "ct",
        "k",
        "carrot",
        "carrots",
        "caret",
        "carets",
        "karate",
        "carot",
        "garret",
    ]
)
"""With what recognisers make of carats: the dialogue repeats the number."""
MISHEARD_KARATS: Final = {
    **dict.fromkeys(("forting", "fording", "forteen", "fortin", "thwarting"), 14),
    **dict.fromkeys(("aiding", "aging", "eighting", "ating"), 18),
}
"""What recognisers make of fourteen and eighteen, before a word for carats."""
HALLMARK_WORDS: Final = frozenset(
    ("hallmark", "hallmarked", "hall", "gold", "bis", "kdm", "purity", "fineness")
)
SAID_HALLMARKS: Final = {
    ("nine", "one", "six"): "916",
    ("nine", "sixteen"): "916",
    ("seven", "fifty"): "750",
    ("five", "eighty", "five"): "585",
    ("nine", "nine", "nine"): "999",
}
RUPEE_WORDS: Final = frozenset(("rupees", "rupee", "rs", "inr", "rupiah", "bucks"))
CORRECTIONS: Final = frozenset(("no", "sorry", "mean", "actually", "rather", "wait", "correction"))
RANGE_WORDS: Final = frozenset(("or", "to", "between", "till"))
FILLERS: Final = frozenset(
    [
        "a",
        "about",
        "all",
        "am",
        "an",
        "and",
        "approx",
        "approximately",
        "around",
        "be",
        "carats",
        "correct",
        "er",
        "exactly",
        "gold",
        "grams",
        "have",
        "i",
        "i'd",
        "i'll",
        "i'm",
        "in",
        "is",
        "it",
        "it's",
        "its",
        "just",
        "like",
        "maybe",
        "mean",
        "my",
        "no",
        "nearly",
        "of",
        "ok",
        "okay",
        "only",
        "or",
        "oh",
        "perhaps",
        "please",
        "probably",
        "right",
        "roughly",
        "say",
        "so",
        "some",
        "sorry",
        "sure",
        "that",
        "that's",
        "the",
        "then",
        "there",
        "think",
        "to",
        "total",
        "total's",
        "um",
        "uh",
        "wait",
        "we",
        "well",
        "with",
        "would",
        "yes",
        "yeah",
        "actually",
        "got",
    ]
)
"""Words around a number that leave it bare; any other word could be a unit that was misheard."""
LIKE_LAKHS: Final = frozenset(
    (
        "like",
        "lack",
        "lacked",
        "relax",
        "black",
        "lah",
        "lag",
        "lakh",
        "lakhs",
        "lacks",
        "late",
        "lot",
        "crore",
        "crores",
        "core",
    )
)
"""What lakhs and crores are heard as; right before an amount, they have lost their number."""
POINTS: Final = frozenset(("point", "dot", "decimal"))
PAUSES: Final = frozenset(",.;:!?")
NEAR: Final = 2
"""Words between a number and a quantity that may be its misheard unit."""
JOINTS: Final = frozenset(("and", ",", "plus"))
MONTHLY: Final = frozenset(("month", "monthly"))
