#!/usr/bin/env python3
"""A loudspeaker, a microphone and a room between them: how much echo is left, and what is understood under it.

    .venv/bin/python scripts/show_echo.py [--turns 20] [--sensitivity]

The agent's sentences (Piper, extra `tts`) go through a simulated room: 20 to 200 ms late, filtered by a quarter of a second of decaying
reflections, under a little hiss. Printed are:

- the echo return loss enhancement: how much quieter the echo is behind the canceller, while nobody else speaks;
- self-interruptions: turns in which the agent's own echo, heard by voice activity, opens an utterance that lasts longer than
  the pause after which a caller's speech cuts the agent off;
- the word error rate of a caller who answers the agent, and of one who speaks over the agent all the time, without any echo, before and
  after, for several levels of echo;
- with --sensitivity, what each care does to speech that needs none, and to speech in noise.

Time is that of the samples: nothing waits, and the figures are the same at each run. The exit code is 1 when a self-interruption
is left.
"""

import argparse
import itertools
import math
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import jiwer
import moonshine_voice
import numpy as np
import numpy.typing as npt
import trio
from piper import PiperVoice, SynthesisConfig

from voice_agent import AudioFrame, Settings, open_session
from voice_agent.audio.ears import Care, Ears
from voice_agent.audio.far_end import RATE
from voice_agent.audio.files import read_audio
from voice_agent.audio.resample import open_resampler
from voice_agent.core.events import SpeechStarted, SpeechStopped, Transcript
from voice_agent.server.assembly import open_services
from voice_agent.session.services import Services
from voice_agent.settings.schema import EarsSettings, VoiceSettings
from voice_agent.speech.piper import find_voice

Audio = npt.NDArray[np.float32]
Spans = list[tuple[float, float]]

STEP = RATE // 50
CUTS_AFTER_SECONDS = 0.5
NEAR_LEVEL_DB = -26.0
HISS_DB = -60.0
ALONE_SECONDS = 10
OVERLAP_SECONDS = 0.5
ALL = Care(echo_cancellation=True, noise_suppression=True, high_pass=True, gain_control=True)
ECHO = Care(echo_cancellation=True)

TURNS = (
    "Hello, this is the gold loan line. I am a machine, not a person.",
    "May I record this call? You may say no.",
    "Do you have a gold loan with another lender now? If so, with whom?",
    "How many grams of gold do you have?",
    "And how many carats is it: twenty four, twenty two, eighteen or fourteen?",
    "I have forty grams of twenty two carat. Is that right?",
    "For forty grams of twenty two carat I estimate a value of two lakh and thirty thousand rupees.",
    "We could lend up to one lakh seventy thousand rupees on it.",
    "The interest would be ten point five percent a year, and the fee one percent.",
    "You would pay twelve instalments of fifteen thousand rupees a month.",
    "This is an estimate; the branch decides.",
    "Would you like to come to a branch with it?",
    "I understand. Nothing is agreed on this call: you decide at the branch.",
    "Shall we arrange a visit, so that you can see for yourself?",
    "That is no problem: a branch can weigh and test it.",
    "Which day suits you?",
    "Shall I note next Tuesday for your visit?",
    "I have passed on that you come on Tuesday.",
    "Please bring a proof of who you are, and one of where you live.",
    "Thank you for calling. Goodbye.",
)
TWO_CITIES = """
It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness, it was the
epoch of belief, it was the epoch of incredulity, it was the season of light, it was the season of darkness, it was the
spring of hope, it was the winter of despair, we had everything before us, we had nothing before us, we were all going
direct to heaven, we were all going direct the other way. In short, the period was so far like the present period, that
some of its noisiest authorities insisted on its being received, for good or for evil, in the superlative degree of
comparison only.
"""


def decibels(sound: Audio) -> float:
    """Mean power in dB below full scale."""
    return 10 * math.log10(float(np.mean(np.square(sound, dtype=np.float64))) + 1e-12)


def at_level(sound: Audio, level_db: float) -> Audio:
    """The same, as loud as that on average."""
    return (sound * 10 ** ((level_db - decibels(sound)) / 20)).astype(np.float32)


def hiss(samples: int, level_db: float, seed: int) -> Audio:
    """White noise."""
    return at_level(np.random.default_rng(seed).standard_normal(samples).astype(np.float32), level_db)


def in_room(far: Audio, delay_ms: int, seed: int) -> Audio:
    """What comes back of the loudspeaker: late, and with 250 ms of reflections; as loud as it was sent."""
    times = np.arange(RATE // 4) / RATE
    room = np.random.default_rng(seed).standard_normal(len(times)) * np.exp(-6.9 * times / 0.25)
    room[0] = 3
    room /= math.sqrt(float(np.sum(room**2)))
    late = np.concatenate((np.zeros(delay_ms * RATE // 1000), np.convolve(far, room)))
    return late[: len(far)].astype(np.float32)


def spoken(turns: Iterable[str]) -> tuple[Audio, list[tuple[float, float]]]:
    """The agent's sentences with a pause behind each, at 16 kHz; and when each begins and is over, echo and all."""
    voice = PiperVoice.load(find_voice(VoiceSettings(kind="piper")))
    # Without the noise that makes each speaking another.
    style = SynthesisConfig(noise_scale=0, noise_w_scale=0)
    parts, spans, at = [], [], 0
    for turn in turns:
        sound = np.concatenate([part.audio_float_array for part in voice.synthesize(turn, style)])
        resampler = open_resampler(voice.config.sample_rate, RATE)
        sound = np.concatenate((resampler.process(sound), resampler.flush(), np.zeros(RATE, np.float32)))
        spans.append((at / RATE, (at + len(sound)) / RATE))
        parts.append(sound)
        at += len(sound)
    return at_level(np.concatenate(parts), NEAR_LEVEL_DB), spans


async def cleaned(near: Audio, far: Audio, care: Care, settings: EarsSettings | None = None) -> Audio:
    """What the ears make of it; ``far`` is played from the first sample on."""
    ears = Ears(settings or EarsSettings(), care)
    parts = []
    for begin in range(0, len(near), STEP):
        ears.far_end.play(far[begin : begin + STEP], RATE, begin / RATE)
        end = min(begin + STEP, len(near))
        ears.clock.note(end / RATE, end / RATE)
        parts.append(await ears.clean(near[begin:end]))
    return np.concatenate((*parts, await ears.flush()))


async def heard(services: Services, sound: Audio) -> tuple[str, list[tuple[float, float]]]:
    """What a session makes of it: the words, and when somebody spoke."""
    begins: dict[int, float] = {}
    spans, finals = [], []
    async with open_session(services) as session, trio.open_nursery() as nursery:

        async def read() -> None:
            async for event in session.events():
                match event:
                    case SpeechStarted(utterance=number, start=start):
                        begins[number] = start
                    case SpeechStopped(utterance=number, end=end):
                        spans.append((begins[number], end))
                    case Transcript(result=result) if result.is_final:
                        finals.append(result.text)

        nursery.start_soon(read)
        for begin in range(0, len(sound), STEP):
            await session.send_audio(AudioFrame(sound[begin : begin + STEP], RATE))
        await session.finish()
    return " ".join(finals), spans


def plain(text: str) -> str:
    """Words alone."""
    return " ".join(re.sub(r"[^a-z' ]+", " ", text.lower()).split())


def error_rate(text: str) -> float:
    """Share of wrong words."""
    return float(jiwer.wer(plain(TWO_CITIES), plain(text)))


def interruptions(spans: Iterable[tuple[float, float]], turns: Iterable[tuple[float, float]]) -> int:
    """Turns that overlap with somebody's speech of more than the pause."""
    long = [(begin, end) for begin, end in spans if end - begin > CUTS_AFTER_SECONDS]
    return sum(any(begin < over and end > start for begin, end in long) for start, over in turns)


async def show_echo(services: Services, far: Audio, turns: list[tuple[float, float]]) -> int:
    """Only the agent speaks."""
    print(f"Only the agent speaks: {len(turns)} turns, {len(far) / RATE:.0f} s")
    print("  delay   room   echo    enhancement, dB        self-interruptions")
    print("     ms            dB   echo only     all   before  echo only   all cares")
    left = 0
    speaking = np.concatenate([np.arange(round(b * RATE), round(e * RATE) - RATE) for b, e in turns[1:]])
    for delay_ms, room in itertools.product((20, 60, 120, 200), (1, 2, 3)):
        echo = in_room(far, delay_ms, room) + hiss(len(far), HISS_DB, 1)
        only, everything = await cleaned(echo, far, ECHO), await cleaned(echo, far, ALL)
        levels = [decibels(sound[speaking]) for sound in (echo, only, everything)]
        counts = [
            interruptions((await heard(services, sound))[1], turns) for sound in (echo, only, everything)
        ]
        left += counts[1] + counts[2]
        print(
            f"{delay_ms:7d} {room:6d} {levels[0]:6.1f} {levels[0] - levels[1]:11.1f} {levels[0] - levels[2]:7.1f} "
            f"{counts[0]:8d} {counts[1]:10d} {counts[2]:11d}"
        )
    return left


def talk(near: Audio, far: Audio, utterances: Spans, turns: Spans) -> tuple[Audio, Audio]:
    """Agent and caller in turn, each at their places in one call; each caller begins before the agent is silent."""
    parts: list[tuple[Audio, Audio]] = []
    for number, (begin, end) in enumerate(utterances):
        start, over = turns[number % len(turns)]
        said = far[round(start * RATE) : round(over * RATE) - RATE]
        answer = near[round((begin - 0.3) * RATE) : round((end + 0.3) * RATE)]
        overlap = round(OVERLAP_SECONDS * RATE)
        length = len(said) - overlap + len(answer) + RATE
        caller, agent = np.zeros(length, np.float32), np.zeros(length, np.float32)
        agent[: len(said)] = said
        caller[len(said) - overlap :][: len(answer)] = answer
        parts.append((caller, agent))
    return np.concatenate([caller for caller, _ in parts]), np.concatenate([agent for _, agent in parts])


async def show_words(services: Services, near: Audio, far: Audio, turns: Spans) -> None:
    """The caller answers the agent, and speaks over the agent all the time."""
    near = near + hiss(len(near), HISS_DB, 3)
    utterances = (await heard(services, near))[1]
    caller, agent = talk(near, far, utterances, turns)
    alone = ALONE_SECONDS * RATE
    over = np.concatenate((hiss(alone, HISS_DB, 4), near))
    for title, caller_sound, agent_sound, begin in (
        (
            f"The caller answers the agent, {len(utterances)} times, and begins {OVERLAP_SECONDS} s before its end",
            caller + hiss(len(caller), HISS_DB, 5),
            agent,
            0,
        ),
        ("The caller speaks over the agent all the time", over, np.resize(far, len(over)), alone),
    ):
        print(f"\n{title}: word error rate, 120 ms of delay")
        clean = error_rate((await heard(services, caller_sound[begin:]))[0])
        print("  echo, dB to speech   without   before   echo only   all cares")
        for relative_db in (-20, -12, -6, 0):
            room = in_room(agent_sound, 120, 7)
            echo = room * np.float32(10 ** (relative_db / 20))
            mixed = caller_sound + echo
            rates = [
                error_rate((await heard(services, sound[begin:]))[0])
                for sound in (
                    mixed,
                    await cleaned(mixed, agent_sound, ECHO),
                    await cleaned(mixed, agent_sound, ALL),
                )
            ]
            print(f"{relative_db:20d} {clean:9.1%} {rates[0]:8.1%} {rates[1]:11.1%} {rates[2]:11.1%}")


async def show_sensitivity(services: Services, near: Audio) -> None:
    """What the cares do where there is no echo."""
    silence = np.zeros_like(near)
    sounds = {
        "clean": near,
        "quiet, -46 dB": at_level(near, NEAR_LEVEL_DB - 20),
        "hiss at 10 dB": near + hiss(len(near), NEAR_LEVEL_DB - 10, 2),
        "hiss at 5 dB": near + hiss(len(near), NEAR_LEVEL_DB - 5, 2),
    }
    cares: dict[str, tuple[Care, EarsSettings]] = {
        "none": (Care(), EarsSettings()),
        "high-pass": (Care(high_pass=True), EarsSettings()),
        "gain": (Care(gain_control=True), EarsSettings()),
        **{
            f"noise {level}": (Care(noise_suppression=True), EarsSettings(noise_suppression_level=level))
            for level in ("low", "moderate", "high", "highest")
        },
        "all": (ALL, EarsSettings()),
    }
    print("\nNo echo: word error rate\n  " + " " * 16 + "".join(f"{name:>16s}" for name in sounds))
    for name, (care, settings) in cares.items():
        rates = [
            error_rate((await heard(services, await cleaned(sound, silence, care, settings)))[0])
            for sound in sounds.values()
        ]
        print(f"  {name:16s}" + "".join(f"{rate:16.1%}" for rate in rates))


async def main() -> int:
    """Print it all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=len(TURNS))
    parser.add_argument(
        "--sensitivity", action="store_true", help="also what each care does where there is no echo"
    )
    arguments = parser.parse_args()
    far, turns = spoken(TURNS[: arguments.turns])
    read = read_audio(Path(moonshine_voice.__file__).parent / "assets/two_cities.wav")
    resampler = open_resampler(read.sample_rate, RATE)
    near = np.concatenate((resampler.process(read.to_mono_float32()), resampler.flush()))
    near = at_level(near, NEAR_LEVEL_DB)
    async with open_services(Settings()) as services:
        left = await show_echo(services, far, turns)
        await show_words(services, near, far, turns)
        if arguments.sensitivity:
            await show_sensitivity(services, near)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(trio.run(main))
