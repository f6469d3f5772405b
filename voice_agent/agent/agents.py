"""Which agent a setting names: ``none``, ``echo``, ``gold_loan``, ``chat``, or ``package.module:factory`` of an integrator."""

import importlib
import inspect
from collections.abc import Callable
from datetime import datetime
from typing import Final

from voice_agent.agent.dialogue_errors import AgentFactoryError
from voice_agent.agent.gold_loan.agent import GoldLoanAgent, utc_now
from voice_agent.agent.llm.agent import ChatAgent
from voice_agent.agent.plain_agents import Echo, Nobody
from voice_agent.agent.talk import Agent
from voice_agent.settings.schema import Settings

_METHODS: Final = ("begin", "reply", "due", "is_over", "run")


def make_agent(settings: Callable[[], Settings], *, now: Callable[[], datetime] = utc_now) -> Agent:
    """Return the agent of ``agent.factory``; ``settings`` gives those in force, at each use.

    Raises:
        AgentFactoryError: there is no such module or factory, it raised, or what it made is no agent; says which.
        DialogueTableError: the agent's table breaks the rules.
    """
    name = settings().agent.factory
    match name:
        case "none":
            return Nobody()
        case "echo":
            return Echo()
        case "gold_loan":
            return GoldLoanAgent(lambda: settings().gold, now)
        case "chat":
            return ChatAgent(lambda: settings().chat)
        case _:
            return _made_by(name, settings)


def _made_by(name: str, settings: Callable[[], Settings]) -> Agent:
    module_name, _, factory_name = name.partition(":")
    if not module_name or not factory_name:
        raise _error(name, "must be none, echo, gold_loan, chat, or package.module:factory")
    try:
        factory = getattr(importlib.import_module(module_name), factory_name)
    except ImportError as error:
        raise _error(name, f"can't be imported: {error}") from error
    except AttributeError:
        raise _error(name, f"{module_name} has no {factory_name}") from None
    try:
        agent: Agent = factory(settings=settings) if _takes_settings(factory) else factory()
    except TypeError as error:
        raise _error(name, f"can't be called without arguments: {error}") from error
    missing = [method for method in _METHODS if not callable(getattr(agent, method, None))]
    if missing:
        raise _error(name, f"made something that is no agent: it has no {', '.join(missing)}")
    return agent


def _takes_settings(factory: Callable[..., object]) -> bool:
    try:
        return "settings" in inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return False  # what can't be called, the call tells


def _error(name: str, words: str) -> AgentFactoryError:
    return AgentFactoryError(f"agent.factory = {name!r}: {words}", field="agent.factory")
