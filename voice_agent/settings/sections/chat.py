"""The language model in the agent's seat: where it is, what it is told, and how long it may take."""

from typing import Literal

import attrs

from voice_agent.core.units import MINUTES, SECONDS
from voice_agent.settings.declare import setting


@attrs.frozen(kw_only=True)
class ChatSettings:
    """A language model that answers; docs/language-model.md explains it."""

    url: str = setting(
        "",
        "Base address of an OpenAI-compatible endpoint, as `https://host/v1`; `/chat/completions` is added.",
        maximum=2048,
    )
    model: str = setting("", "The `model` that the endpoint is asked for.", maximum=256, live=True)
    api_key: str = setting("", "Bearer token for the endpoint.", secret=True, maximum=4096, live=True)
    system_prompt: str = setting(
        "You answer a telephone call. What you write is spoken aloud: answer in one to three short sentences of plain "
        "text, without lists or markup. If you did not understand, ask. Say so when you don't know something.",
        "What the model is told before everything else.",
        maximum=65_536,
        live=True,
    )
    system_prompt_file: str = setting(
        "",
        "A file with that text, instead of it; read anew in each turn.",
        maximum=4096,
        live=True,
    )
    temperature: float = setting(
        0.7,
        "How freely the model chooses its words; negative leaves it to the endpoint, which some models demand.",
        minimum=-1,
        maximum=2,
        live=True,
    )
    max_reply_tokens: int = setting(
        300,
        "Longest reply that is asked for; about two minutes of speech.",
        unit="tokens",
        minimum=1,
        maximum=32_768,
        live=True,
    )
    reply_limit_field: Literal["max_tokens", "max_completion_tokens"] = setting(
        "max_tokens", "How the request names that limit; some models know the second name alone.", live=True
    )
    max_history_tokens: int = setting(
        4000,
        "Of the talk so far, the model is given so much at most, the newest; by an estimate that is rather too high.",
        unit="tokens",
        minimum=100,
        maximum=1_000_000,
        live=True,
    )
    first_token_timeout_seconds: float = setting(
        4 * SECONDS,
        "The endpoint's first word must come by then, or it is asked again.",
        unit="seconds",
        minimum=0.1,
        maximum=120,
        live=True,
    )
    token_timeout_seconds: float = setting(
        4 * SECONDS,
        "Each further word must follow the last one within this time.",
        unit="seconds",
        minimum=0.1,
        maximum=120,
        live=True,
    )
    budget_seconds: float = setting(
        15 * SECONDS,
        "A turn may wait for the endpoint so long in all, retries and every round of tools included.",
        unit="seconds",
        minimum=0.1,
        maximum=600,
        live=True,
    )
    retries: int = setting(
        2,
        "How often a request that failed before anything was said is sent again in a turn, if the budget allows.",
        minimum=0,
        maximum=10,
        live=True,
    )
    asks_ahead: bool = setting(
        True,
        "The model is asked while the caller might still speak on, for an answer without delay; a request that was in vain "
        "costs its tokens.",
        live=True,
    )
    max_tool_rounds: int = setting(
        4,
        "How often in a turn the model may use tools before it must answer.",
        unit="rounds",
        minimum=0,
        maximum=20,
        live=True,
    )
    filler: str = setting(
        "One moment, please.",
        "Said once in a turn that nothing has been said in for `chat.filler_after_seconds`; empty says nothing.",
        maximum=500,
        live=True,
    )
    filler_after_seconds: float = setting(
        2 * SECONDS,
        "So long nothing is said before the filler is.",
        unit="seconds",
        minimum=0.1,
        maximum=60,
        live=True,
    )
    greeting: str = setting(
        "Hello, you are talking to an automated assistant. How can I help you?",
        "Said first; empty lets the model begin.",
        maximum=2000,
        live=True,
    )
    reprompt: str = setting(
        "Are you still there?", "Said to a caller who is silent.", minimum=1, maximum=500, live=True
    )
    max_reprompts: int = setting(
        2, "A caller who is silent once more is said goodbye to.", minimum=0, maximum=20, live=True
    )
    goodbye: str = setting(
        "Goodbye.",
        "Said at the end, where the model has not said one.",
        minimum=1,
        maximum=500,
        live=True,
    )
    apology: str = setting(
        "I'm sorry, I can't answer right now. Please say that again.",
        "Said when the model could not be asked.",
        minimum=1,
        maximum=500,
        live=True,
    )
    broken_apology: str = setting(
        "Sorry, I lost my thread. Could you ask me that again?",
        "Said when an answer broke off after a part of it had been said.",
        minimum=1,
        maximum=500,
        live=True,
    )
    max_failures: int = setting(
        3,
        "When so many turns in a row have failed, the agent says goodbye; 0 goes on for ever.",
        unit="turns",
        minimum=0,
        maximum=100,
        live=True,
    )
    limit_seconds: float = setting(
        20 * MINUTES,
        "A talk may last so long; then the agent says goodbye.",
        unit="seconds",
        minimum=1,
        maximum=86_400,
        live=True,
    )
