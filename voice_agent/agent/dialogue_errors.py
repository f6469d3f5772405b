"""What can be wrong with a dialogue, an agent, or what an agent does."""

from voice_agent.core.errors import DependencyError, InternalError, OperatorError


class DialogueTableError(OperatorError):
    """A dialogue's table breaks the rules of ``agent/dialogue.py``; the message lists every place."""

    code = "dialogue_table"


class AgentFactoryError(OperatorError):
    """``agent.factory`` names nothing that makes an agent."""

    code = "agent_factory"


class IllegalStepError(InternalError):
    """A dialogue was given an event that it doesn't know, or any event after its end."""

    code = "illegal_step"


class ActionFailedError(DependencyError):
    """Something that the agent does for a caller failed or took too long; the caller is told that it was not done."""

    code = "action_failed"


class PriceUnavailableError(DependencyError):
    """The price of gold could not be fetched, or what came is no price."""

    code = "price_unavailable"
