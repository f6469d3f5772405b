"""The two agents without a dialogue: nobody (transcription only), and an echo."""

import trio

from voice_agent.agent.talk import Heard, HungUp, Turn


class Nobody:
    """Answers nothing: the call is transcribed, and that is all."""

    def begin(self, at: float) -> None:  # noqa: ARG002 - the protocol's signature
        """There is nothing to know."""
        return

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Nothing has to be done beside calls."""
        task_status.started()

    async def reply(self, turn: Turn) -> None:
        """Say nothing."""

    def due(self, state: None) -> None:  # noqa: ARG002 - the protocol's signature
        """Time doesn't matter."""
        return

    def is_over(self, state: None) -> bool:  # noqa: ARG002 - the protocol's signature
        """The caller ends the call."""
        return False


class Echo:
    """Says what it heard; for trying a voice, a line, and interruptions. Its state is whether the caller has hung up."""

    def begin(self, at: float) -> bool:  # noqa: ARG002 - the protocol's signature
        """Begin with a caller who is there."""
        return False

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Nothing has to be done beside calls."""
        task_status.started()

    async def reply(self, turn: Turn) -> None:
        """Say the same words again."""
        if isinstance(turn.event, HungUp):
            turn.state = True
        if isinstance(turn.event, Heard) and turn.event.text.strip():
            await turn.say(turn.event.text)

    def due(self, state: bool) -> None:  # noqa: ARG002 - the protocol's signature
        """Time doesn't matter."""
        return

    def is_over(self, state: bool) -> bool:
        """Over when the caller is gone."""
        return state
