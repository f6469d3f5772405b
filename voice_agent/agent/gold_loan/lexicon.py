"""What callers of a gold-loan line say for what they want: phrases and their weights, data alone.

Firm: turns round a phrase that stands in it ("don't want a loan"). Sure: says it all. Likely: says it where nothing else is said.
Hint: only helps another one. ``*`` stands for up to three words.
"""

from collections.abc import Mapping
from typing import Final

from voice_agent.agent.understanding.intents import IntentLexicon


def _weighted(**phrases: str) -> list[tuple[str, float]]:
    weights = {"firm": 4.0, "sure": 2.5, "likely": 1.5, "hint": 0.5}
    return [(phrase.strip(), weights[how]) for how, text in phrases.items() for phrase in text.split("|")]


PHRASES: Final[Mapping[str, list[tuple[str, float]]]] = {
    "loan inquiry": _weighted(
        sure="need a loan|want a loan|need a gold loan|want a gold loan|looking for a loan"
        "|looking for a gold loan|apply for a loan|apply for a gold loan|pledge my gold|pawn my gold"
        "|loan against * gold|loan on * gold|what would i get|what will i get|what do i get"
        "|how much would i get|how much will i get|how much do i get|how much can i get|how much money * get"
        "|tell me about * loan|need money|need cash|what is my gold worth|what's my gold worth|your offer"
        "|what can you offer|what do you offer",
        likely="gold loan|goal loan|cold loan|take a loan|get a loan|borrow",
        hint="loan|gold|offer",
    ),
    "interest rate": _weighted(
        sure="interest rate|rate of interest|interest rates|how much interest|what interest|your rates"
        "|what rate|what is the interest|what's the interest|what are the rates|what is the rate"
        "|what's the rate|monthly instalment|monthly installment|what is the emi|what's the emi"
        "|how much * per month|how much * every month",
        likely="interest|emi|percent * charge|processing fee|charges|rates",
    ),
    "eligibility": _weighted(
        sure="am i eligible|eligible for|do i qualify|can i qualify|eligibility|how much am i eligible"
        "|recalculate|check again|calculate again|different gold|other gold|change the weight|wrong weight"
        "|wrong purity|that's not my gold",
        likely="qualify|eligible",
    ),
    "switch lender": _weighted(
        sure="switch * loan|switch lender|switch from|transfer my loan|transfer * loan|move my loan"
        "|move * loan * you|take over my loan|takeover|take over * loan|balance transfer|change my lender"
        "|change lender|shift my loan|refinance|how much * save|what would i save|what do i save"
        "|what will i save|would i save",
        likely="switch|transfer|save * money|saving",
    ),
    "objection": _weighted(
        firm="not interested|don't want a loan|do not want a loan|don't need a loan|do not need a loan"
        "|no need for a loan|not looking for",
        sure="too expensive|too high|too costly|too much interest|too little|too low|not enough|is it safe"
        "|how safe|is my gold safe|don't trust|do not trust|not comfortable|worried|is this a scam"
        "|are you real|cheaper elsewhere|better rate|better offer|better deal|happy with|satisfied with"
        "|hidden charges|hidden fees|lose my gold|not convinced|need to think|let me think|have to think"
        "|think about it|ask my wife|ask my husband|ask my family|talk to my family",
        likely="expensive|costly|scam|fraud|afraid|risk|risky|cheaper",
    ),
    "schedule visit": _weighted(
        sure="visit the branch|visit your branch|come to the branch|come to your branch|come to your office"
        "|visit your office|book a visit|book an appointment|make an appointment|schedule a visit"
        "|schedule an appointment|fix an appointment|when can i come|can i come|i will come|i'll come"
        "|i can come|where is your branch|where is the branch|nearest branch|which branch"
        "|where are you located|your address",
        likely="appointment|branch|visit",
    ),
    "documentation": _weighted(
        sure="what documents|which documents|documents * need|documents * required|documents * bring"
        "|what papers|which papers|what proof|id proof|what do i need to bring|what should i bring"
        "|what do i bring|what to bring|need to bring",
        likely="documents|document|documentation|paperwork|papers|aadhaar|aadhar|pan card|kyc|identity card",
    ),
    "person": _weighted(
        sure="speak to a person|talk to a person|speak to a human|talk to a human|real person|human being"
        "|speak to someone|talk to someone|speak to somebody|talk to somebody|customer care"
        "|speak to an agent|talk to an agent|connect me|transfer me|call me back|call back|your manager"
        "|the manager|live agent",
        likely="human|manager|operator|representative",
    ),
    "repeat": _weighted(
        sure="say that again|say it again|repeat that|repeat it|repeat please|please repeat|can you repeat"
        "|could you repeat|what did you say|come again|pardon|pardon me|didn't hear|did not hear|can't hear"
        "|didn't catch|did not catch|once more|one more time|sorry what",
    ),
    "farewell": _weighted(
        sure="goodbye|good bye|bye|bye bye|have to go|got to go|hang up|that's all|that is all"
        "|that will be all|nothing else|talk to you later|see you|end the call|stop calling|don't call"
        "|do not call",
        hint="thank you|thanks",
    ),
    "greeting": _weighted(
        likely="hello|hi|hey|good morning|good afternoon|good evening|namaste|namaskaram|vanakkam"
        "|how are you|are you there",
    ),
}
"""Yes and no are not here: they are read by rules of their own."""

LEXICON: Final = IntentLexicon(PHRASES)

NO_LENDER_PHRASES: Final = IntentLexicon(
    {
        "none": _weighted(
            sure="nobody|no one|no body|none|not with anyone|not with anybody|with no one|no lender|no loan"
            "|no existing loan|no other loan|no current loan|first time|first loan|new loan"
            "|don't have a loan|do not have a loan|don't have any|do not have any|never had|never taken"
            "|haven't taken|not taken|nowhere"
        )
    }
)

LENDER_KINDS: Final = {
    "a jeweller": "jeweller jeweler jewellers jewelers jewellery jewelry",
    "a pawnbroker": "pawnbroker pawnbrokers pawnshop",
    "a moneylender": "moneylender moneylenders financier",
    "a cooperative": "cooperative cooperatives society",
    "a bank": "bank banks",
}
"""Kinds of lenders, for names that are not in the settings; no rate is known of them."""
