"""Transcribe a file inside a Trio program."""

import sys
from pathlib import Path

import trio

import voice_agent
from voice_agent.audio.files import iter_audio


async def feed(session: voice_agent.Session, path: Path) -> None:
    """Send the file in pieces of a second, then say that it was all."""
    for frame in iter_audio(path):
        await session.send_audio(frame)
    await session.finish()


async def main(path: Path) -> None:
    """Print each final with its time."""
    async with voice_agent.open_session() as session, trio.open_nursery() as nursery:
        nursery.start_soon(feed, session, path)
        async for event in session.events():
            match event:
                case voice_agent.Transcript(result=result) if result.is_final:
                    print(f"{result.start:7.2f} s  {result.text}")
                case voice_agent.SessionClosed(record=record):
                    print(f"{record.audio_seconds:.1f} s of audio, {record.transcripts} transcripts")


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]))
