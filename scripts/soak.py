#!/usr/bin/env python3
"""Calls for minutes on end while everything goes wrong around them, and a count of what became of every word.

Three server processes keep their sessions in one Redis that writes each commit to disk. Callers speak real speech with
pauses, hang up, and call again, by the same client as ``voice-agent call``. Meanwhile, at random: connections are cut,
nodes are killed with -9, frozen and thawed, drained and started again, and given other settings. At the end every word
that a caller was promised is looked for in the journals.

    scripts/soak.py --seconds 600 --calls 20
    scripts/soak.py --plan rolling --seconds 60 --calls 6       each node once drained and replaced, nothing else

The exit code is 0 when everything is zero that must be.
"""

import argparse
import json
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import trio
from soak_count import Findings, Tally, look_through
from soak_nodes import GRACE_SECONDS, Line, Node, redis_server
from soak_talks import Talk, talks

from voice_agent.cli.call_client import ClientOptions, call_server
from voice_agent.cli.call_result import CallResult, ReceivedMessage
from voice_agent.core.errors import ServerUnreachableError
from voice_agent.session.store.redis import open_redis_store

PREFIX = "soak"
NODES = 3

Chance = random.Random


def say(text: str) -> None:
    """Print a line with the time."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


# -- the callers ------------------------------------------------------------------------------------------------------


async def caller(
    urls: Callable[[], list[str]], source: Iterator[Talk], tally: Tally, is_over: Callable[[], bool]
) -> None:
    """Call, talk, hang up, and call again until it is time."""
    while not is_over():
        session = ""

        def on_message(received: ReceivedMessage) -> None:
            nonlocal session
            message = received.message
            if message["type"] == "ready":
                session = message["session"]
            elif message["type"] == "final":
                tally.hear(session, message)

        talk = next(source)
        try:
            result = await call_server(
                urls(), talk, options=ClientOptions(partials=False), on_message=on_message
            )
        except ServerUnreachableError:
            tally.unreachable += 1
            await trio.sleep(1)
            continue
        _count(result, tally)
        tally.whole.append((talk, _text_of(result)))


def _text_of(result: CallResult) -> str:
    return " ".join(final.text for final in result.finals)


def words_of(text: str) -> Counter[str]:
    """Count a text's words."""
    return Counter(re.findall(r"[a-z']+", text.lower()))


async def understand(node: Node, calls: list[tuple[Talk, str]]) -> tuple[int, int]:
    """Have a server without troubles hear some calls again; return its words, and how many of them weren't told."""
    await node.start()
    words = lost = 0
    for talk, told in calls:
        again = await call_server(
            f"ws://127.0.0.1:{node.port}/v1/ws", talk, options=ClientOptions(partials=False, speed=0)
        )
        heard = words_of(_text_of(again))
        words += heard.total()
        untold = (heard - words_of(told)).total()
        if untold:
            print(
                f"of a call, {untold} words were not told:\n  told:        {told}\n  undisturbed: {_text_of(again)}"
            )
        lost += untold
    node.kill()
    return words, lost


def _count(result: CallResult, tally: Tally) -> None:
    tally.calls += 1
    tally.resumes += result.resumes
    tally.lost_seconds += result.lost_seconds
    if result.failure_code is not None:
        tally.failures[result.failure_code] += 1


# -- what goes wrong --------------------------------------------------------------------------------------------------


@attrs.define(kw_only=True)
class Trouble:
    """Makes it, at random but always the same with one seed."""

    nodes: list[Node]
    lines: list[Line]
    chance: Chance
    made: Counter[str] = attrs.field(factory=Counter)
    is_done: bool = False
    """Whether a plan that ends has ended."""

    async def random(self) -> None:
        """For ever."""
        kinds = {"cut": 10, "kill": 1, "freeze": 1, "drain": 1, "reload": 2}
        while True:
            await trio.sleep(self.chance.uniform(0.5, 3))
            (kind,) = self.chance.choices(list(kinds), list(kinds.values()))
            await self.make(kind)

    async def rolling(self) -> None:
        """Each node once, one after the other."""
        for node in self.nodes:
            await trio.sleep(5)
            await self._replace(node)
            self.made["drain"] += 1
        self.is_done = True

    async def make(self, kind: str) -> None:
        """Make one kind of trouble, where it can be made: one node is always left."""
        node = self.chance.choice(self.nodes)
        match kind:
            case "cut" if self.chance.choice(self.lines).cut(self.chance):
                pass
            case "kill":
                say(f"{node.name}: killed")
                node.kill()
                await node.start()
            case "freeze" if node.process is not None:
                say(f"{node.name}: frozen")
                node.process.send_signal(signal.SIGSTOP)
                try:
                    await trio.sleep(self.chance.uniform(1, 8))
                finally:
                    node.process.send_signal(signal.SIGCONT)
            case "drain":
                await self._replace(node)
            case "reload":
                seconds = self.chance.randint(20, 90)
                for other in self.nodes:
                    (other.folder / "settings.toml").write_text(
                        f"[session]\nidle_timeout_seconds = {seconds}.0\n"
                    )
            case _:
                return
        self.made[kind] += 1

    async def _replace(self, node: Node) -> None:
        say(f"{node.name}: drained")
        await node.drain()
        await node.start()


async def look_at(node: Node) -> dict[str, float]:
    """Return what is left in a node without calls, against its start."""
    now = await node.figures()
    return {
        "sessions": now.get("voice_agent_active_sessions", 0.0),
        "descriptors": now["process_open_fds"] - node.at_start["process_open_fds"],
        "resident_mib": (
            now["process_resident_memory_bytes"] - node.at_start["process_resident_memory_bytes"]
        )
        / 2**20,
    }


async def soak(arguments: argparse.Namespace, folder: Path, redis_url: str) -> int:
    """Run everything; return the exit code."""
    environ = {
        "VOICE_AGENT__STORE__KIND": "redis",
        "VOICE_AGENT__STORE__REDIS_URL": redis_url,
        "VOICE_AGENT__STORE__REDIS_PREFIX": PREFIX,
        "VOICE_AGENT__SERVER__GRACE_SECONDS": str(GRACE_SECONDS),
        "VOICE_AGENT__SERVER__LAME_DUCK_SECONDS": "0",
        # All the calls are wanted, however busy the machine is.
        "VOICE_AGENT__ADMISSION__ENABLED": "false",
        "VOICE_AGENT__LIMITS__CALLS_PER_MINUTE_PER_ADDRESS": "6000",
    }
    nodes = []
    for number in range(NODES):
        (folder / f"node-{number}").mkdir()
        nodes.append(Node(name=f"node-{number}", folder=folder / f"node-{number}", environ=environ))
    chance = Chance(arguments.seed)
    tally = Tally()
    lines = [Line(node=node) for node in nodes]
    trouble = Trouble(nodes=nodes, lines=lines, chance=chance)
    try:
        async with trio.open_nursery() as around:
            for node, line in zip(nodes, lines, strict=True):
                await node.start()
                await line.serve(around)
            say(f"{NODES} nodes, {arguments.calls} callers, {arguments.seconds} s")

            def urls() -> list[str]:
                ports = [line.port for line in lines]
                return [f"ws://127.0.0.1:{port}/v1/ws" for port in chance.sample(ports, len(ports))]

            async with trio.open_nursery() as making:
                making.start_soon(trouble.rolling if arguments.plan == "rolling" else trouble.random)
                making.start_soon(_progress, tally, trouble)
                until = trio.current_time() + arguments.seconds

                def is_over() -> bool:
                    is_time = trio.current_time() >= until
                    return is_time and (trouble.is_done or arguments.plan == "random")

                async with trio.open_nursery() as calling:
                    for number in range(arguments.calls):
                        source = talks(Chance(f"{arguments.seed}/{number}"))
                        calling.start_soon(caller, urls, source, tally, is_over)
                making.cancel_scope.cancel()
            for node in nodes:
                if not node.is_up:
                    await node.start()
            # Tasks of calls that were cut off have the finish timeout for their last words.
            await trio.sleep(5)
            left = {node.name: await look_at(node) for node in nodes}
            for node in nodes:
                await node.drain()
            around.cancel_scope.cancel()
    finally:
        for node in nodes:
            node.kill()
    async with open_redis_store(redis_url, prefix=PREFIX, keep_seconds=3600) as store:
        findings = await look_through(store, tally)
    quiet = Node(name="quiet", folder=folder, environ={**environ, "VOICE_AGENT__STORE__KIND": "none"})
    compared = tally.whole[-arguments.compare :] if arguments.compare else []
    try:
        understood, untold = await understand(quiet, compared)
    finally:
        quiet.kill()
    print(
        f"\nof {len(compared)} calls a server without troubles understands {understood} words; "
        f"{untold} of them were not told"
    )
    return report(tally, trouble, findings, left, nodes)


async def _progress(tally: Tally, trouble: Trouble) -> None:
    while True:
        await trio.sleep(15)
        say(
            f"{tally.calls} calls ended, {tally.resumes} resumes, {len(tally.told)} finals; {dict(trouble.made)}"
        )


def report(
    tally: Tally, trouble: Trouble, findings: Findings, left: dict[str, dict[str, float]], nodes: list[Node]
) -> int:
    """Print what came of it; 0 when all is zero that must be."""
    words = sum(len(text.split()) for text in tally.told.values())
    print(f"\ntrouble            {dict(trouble.made)}")
    print(
        f"calls              {tally.calls} ended, {tally.resumes} resumes, {tally.unreachable} found no server"
    )
    print(f"failures           {dict(tally.failures)}")
    print(f"journals           {findings.sessions} sessions, {findings.entries} entries")
    print(
        f"words promised     {words} in {len(tally.told)} finals; {tally.unstored} finals told as not kept yet"
    )
    print(f"left in nodes      {json.dumps(left)}")
    must_be_zero = {
        "finals missing": findings.missing,
        "finals with other words": findings.other_words,
        "finals told twice": tally.told_twice,
        "journals with holes": findings.holes,
        "doubles": findings.doubles,
        "sessions left open": findings.left_open,
        "sessions left in nodes": sum(figures["sessions"] for figures in left.values()),
        "nodes that did not exit with 0": sum(code != 0 for node in nodes for code in node.exits),
        "seconds of sound lost": round(tally.lost_seconds, 1),
        "calls that failed": sum(tally.failures.values()),
    }
    for name, value in must_be_zero.items():
        print(f"{name:<31}{value:g}")
    return int(any(must_be_zero.values()))


def main() -> None:
    """Read the arguments, and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=600, help="how long callers call (600)")
    parser.add_argument("--calls", type=int, default=20, help="callers at once (20)")
    parser.add_argument(
        "--plan", choices=["random", "rolling"], default="random", help="what goes wrong (random)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of all that is random (1)")
    parser.add_argument(
        "--compare",
        type=int,
        default=10,
        help="calls that are heard again afterwards, to compare the words (10)",
    )
    parser.add_argument("--keep", type=Path, help="keep the nodes' logs in this folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with redis_server(folder) as redis_url:
            try:
                code = trio.run(soak, arguments, folder, redis_url)
            finally:
                if arguments.keep is not None:
                    shutil.copytree(folder, arguments.keep, dirs_exist_ok=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
