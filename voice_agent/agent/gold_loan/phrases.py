"""What the gold-loan line says: short sentences, as data. Figures stand in braces, and come from tools alone.

Written for the eye (₹1,20,000); ``speech_text`` makes words of it for a voice. What is modest here is modest on purpose: a
quote is an estimate, nothing is agreed on the call, and what was not sent is not said to be sent.
"""

from collections.abc import Mapping
from typing import Final

PHRASES: Final[Mapping[str, tuple[str, ...]]] = {
    "disclose": ("Hello, this is {company}.", "I am a machine, not a person."),
    "ask consent": ("May I record this call? You may say no.",),
    "consent first": ("Before we go on: may I record this call?",),
    "thank": ("Thank you.",),
    "go on unrecorded": ("All right, we go on without a recording.",),
    "ask lender": ("Do you have a gold loan with another lender now? If so, with whom?",),
    "ask grams": ("How many grams of gold do you have?",),
    "ask karat": ("And how many carats is it: 24, 22, 18 or 14?",),
    "check gold": ("I have {grams} of {karat} K. Is that right?",),
    "present value": ("For {grams} of {karat} K I estimate a value of {value}.",),
    "present limit": ("We could lend up to {loan} on it.",),
    "present wish": ("We could lend the {loan} you ask for; up to {limit} would be possible.",),
    "present above": ("That is less than you ask for: we could lend up to {limit} on it.",),
    "present cost": (
        "The interest would be {rate} a year, and the fee {fee}.",
        "You would pay {months} instalments of {instalment} a month.",
    ),
    "present source": (
        "I reckon with gold at {price} a gram, as of {time}. This is an estimate; the branch decides.",
    ),
    "no quote": ("I can't give you a figure now, because {reason}.", "A branch can tell you."),
    "ask interest": ("Would you like to come to a branch with it?",),
    "explain rate": ("Our interest a year is {tiers}.", "The fee is {fee} of the loan."),
    "saving unknown": ("I don't know what you pay now, so I can't say what you would save.",),
    "saving none": ("Against their {theirs} a year you would save nothing with us.",),
    "saving some": (
        "Against their {theirs} a year you would save about {saving} over {months} months, with our fee taken off.",
        "This is an estimate too.",
    ),
    "answer objection": (
        "I understand.",
        "Nothing is agreed on this call: you decide at the branch.",
    ),
    "ask doubt": ("Shall we arrange a visit, so that you can see for yourself?",),
    "offer weighing": ("That is no problem: a branch can weigh and test it.",),
    "ask visit": ("Would you like to visit a branch? Which day suits you?",),
    "confirm visit": ("Shall I note {day} for your visit?",),
    "ask day": ("Which day suits you?",),
    "visit sent": ("I have passed on that you come on {day}.",),
    "visit not sent": ("I could not pass that on, but you are welcome on {day}.",),
    "visit unknown": (
        "I can't tell whether the branch knows that you come on {day}. Please ask before you set out.",
    ),
    "branch": ("The branch in {city} is at {address}.",),
    "leave open": ("You are welcome at a branch at any time.",),
    "lead sent": ("Our desk has your number, and may call you.",),
    "person sent": ("I have asked for a person to get in touch with you.",),
    "person not sent": ("I can't reach a person from here.",),
    "person unknown": ("I can't tell whether my request for a person has arrived.",),
    "explain documents": ("Please bring {documents}.",),
    "greet again": ("Hello.",),
    "reprompt": ("Are you still there?",),
    "not understood": ("Sorry, I did not understand that.",),
    "apologise": ("Sorry, something went wrong on our side.",),
    "respect no": ("All right. Thank you for your time. Goodbye.",),
    "time is over": ("I am afraid our time is up.",),
    "goodbye": ("Thank you for calling. Goodbye.",),
}
