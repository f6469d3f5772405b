"""Many calls at once: who calls with what, and how Ctrl-C ends them.

make_calls
 ├ watch     first Ctrl-C: every call hangs up properly; second: everything is cancelled
 └ a slot for each of `--calls`, which makes its calls one after the other
    └ call_server
"""

import signal
from collections.abc import AsyncIterator, Sequence
from functools import partial

import attrs
import trio

from voice_agent.cli.call_audio import AudioSource
from voice_agent.cli.call_client import call_server
from voice_agent.cli.call_display import CallDisplay
from voice_agent.cli.call_report import CallOutcome, CallReport
from voice_agent.cli.call_state import ClientOptions
from voice_agent.core.errors import VoiceAgentError


@attrs.frozen
class PlannedCall:
    """Call ``number`` (from 1) with the audio called ``label``."""

    number: int
    label: str
    source: AudioSource


def deal(sources: Sequence[tuple[str, AudioSource]], slots: int) -> list[list[PlannedCall]]:
    """Deal the sources to the slots in turn.

    Every slot gets at least one call, so fewer sources than slots are used again; and every source is used, so a
    slot may have several calls to make, one after the other.
    """
    dealt: list[list[PlannedCall]] = [[] for _ in range(slots)]
    for index in range(max(slots, len(sources))):
        label, source = sources[index % len(sources)]
        dealt[index % slots].append(PlannedCall(index + 1, label, source))
    return dealt


async def make_calls(
    urls: Sequence[str],
    slots: Sequence[Sequence[PlannedCall]],
    *,
    options: ClientOptions,
    display: CallDisplay,
    latency_note: str | None = None,
) -> CallReport:
    """Make the calls, the slots at once, and return what came of them; runs in the main thread (signals).

    A call that fails does not touch the others. Of several ``urls`` each call begins with the next one.
    """
    outcomes: list[CallOutcome] = []
    hang_up = trio.Event()
    with trio.open_signal_receiver(signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_watch, signals, hang_up, nursery.cancel_scope, display)
            async with trio.open_nursery() as calls:
                for index, slot in enumerate(slots):
                    calls.start_soon(
                        partial(
                            _make_in_turn,
                            [*urls[index % len(urls) :], *urls[: index % len(urls)]],
                            slot,
                            outcomes,
                            options=options,
                            display=display,
                            hang_up=hang_up,
                        )
                    )
            nursery.cancel_scope.cancel()
    outcomes.sort(key=lambda outcome: outcome.number)
    return CallReport(outcomes=outcomes, was_interrupted=hang_up.is_set(), latency_note=latency_note)


async def _watch(
    signals: AsyncIterator[int], hang_up: trio.Event, everything: trio.CancelScope, display: CallDisplay
) -> None:
    await anext(signals)
    hang_up.set()
    display.show_remark("hanging up; Ctrl-C again leaves at once")
    await anext(signals)
    everything.cancel()


async def _make_in_turn(
    urls: Sequence[str],
    slot: Sequence[PlannedCall],
    outcomes: list[CallOutcome],
    *,
    options: ClientOptions,
    display: CallDisplay,
    hang_up: trio.Event,
) -> None:
    for planned in slot:
        if hang_up.is_set():
            return
        try:
            result = await call_server(
                urls,
                planned.source,
                options=options,
                on_message=partial(display.show_message, planned.number),
                on_news=partial(display.show_news, planned.number),
                hang_up=hang_up,
            )
        except VoiceAgentError as error:
            outcome = CallOutcome(number=planned.number, label=planned.label, error=error)
        else:
            outcome = CallOutcome(number=planned.number, label=planned.label, result=result)
        outcomes.append(outcome)
