"""Everything the world can say besides complaints and fixes, as templates.

``STANDARD`` is how the corpus and the demonstrator speak. ``OWN`` is the demonstrator's idiolect:
the same meaning in common words, in sentences that the base corpus never holds. ``{fix}`` is an
imperative of `faults`, ``{symptom}`` a predicate, ``{name}``, ``{order}`` and ``{appliance}`` are
the customer's.
"""

from __future__ import annotations

from typing import Literal, get_args

from demoalign.lab.templates import Template

Facet = Literal["empathy", "warranty", "timing", "safety", "follow_up"]
Kind = Literal[
    "fix",
    "empathy",
    "warranty",
    "timing",
    "safety",
    "follow_up",
    "rudeness",
    "advertising",
    "filler",
]
FACETS: tuple[Facet, ...] = get_args(Facet)

LISTS: dict[str, tuple[str, ...]] = {
    "name": (
        *("Maria", "Anna", "Peter", "Omar", "Lucy", "Ravi", "Emma", "Jonas", "Mei", "Carlos"),
        *("Nina", "Tom", "Sara", "Ivan", "Leila", "Hugo", "Ruth", "Felix", "Amira", "Paul"),
        *("Greta", "Kofi", "Clara", "Diego", "Hana", "Oscar", "Julia", "Marek", "Zoe", "Ben"),
        *("Irene", "Samir"),
    ),
    "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "month": (
        *("January", "February", "March", "April", "May", "June", "July", "August"),
        *("September", "October", "November", "December"),
    ),
    "duration": (
        *("ten minutes", "twenty minutes", "half an hour", "an hour", "two hours", "three hours"),
        *("a day", "two days", "three days", "a week"),
    ),
    "years": ("two", "three", "five"),
    "percent": ("ten", "twenty", "thirty", "fifty"),
}

STANDARD: dict[Kind, tuple[str, ...]] = {
    "fix": (
        "Please {fix}.",
        "(Try|First try|You could try) to {fix}[ and (test|check) it again].",
        "(The best|The usual|The simplest) (fix|remedy|step) is to {fix}.",
        "I (suggest|recommend) that you {fix}[ today| this evening].",
        "You [just |only ]need to {fix}[ (slowly|carefully|gently)].",
        "What (helps|works) here is to {fix}.",
        "It [usually |often ]helps to {fix}.",
    ),
    "empathy": (
        "I am [so |very |truly ]sorry (about this|for the trouble|to hear that)[, {name}].",
        "I (understand|see|know) how (annoying|tiring|upsetting) (this|that) (is|must be).",
        "That (must be|sounds) [very |really |quite ](annoying|stressful|unpleasant)[, {name}].",
        "(Sorry|Apologies) for the (trouble|worry|bother) this has caused[ you].",
        "Nobody (wants|likes|needs) (this|that) on a {day}.",
        "You have been [very |so ]patient(, {name}| with us| so far).",
        "I would (feel|be) (upset|cross) too[, {name}].",
    ),
    "warranty": (
        "Your warranty [still ]covers (this|the repair|the part)[ until {month}].",
        "(This|The repair) is free under (your|the) (warranty|guarantee)[ until {month}].",
        "The guarantee runs (until|to the end of) {month}.",
        "You will not (pay|be charged) because the warranty (holds|applies).",
        "I (see|have checked) that the {years}-year warranty (applies|is valid).",
        "Our {years}-year guarantee (pays for|includes) (parts|labour|parts and labour).",
        "(Keep|Have) your receipt (ready|at hand) for the warranty[ claim].",
    ),
    "timing": (
        "(This|It|The job) (takes|will take) [about |around |roughly ]{duration}.",
        "You should be (done|finished) (in|within) {duration}.",
        "(Allow|Plan|Set aside) [about |around ]{duration} for (this|it|the job).",
        "It should (work|run) again (by|on|before) {day}.",
        "Any (spare|new) part (arrives|will arrive) (by|on) {day}.",
        "Most (customers|people) (need|spend) [only ]{duration}.",
        "Expect (a result|an improvement) (after|within) {duration}.",
    ),
    "safety": (
        "(Please|Always|But) unplug it (first|before you start|beforehand).",
        "(Make sure|Check) that the power is [fully |really ]off[ first].",
        "(Never|Do not) (touch|open) it while it is (hot|wet|plugged in).",
        "Wear [thick |rubber ]gloves[ for this| to be safe].",
        "Keep (children|pets|children and pets) away[ while you work].",
        "Let it cool for {duration} (first|before you touch it).",
        "(Stop|Switch it off) (at once|right away) if you (smell|see) smoke.",
    ),
    "follow_up": (
        "I will (call|ring|phone) you (on|next) {day}[ to check].",
        "(Write|Reply) to me if (it|this) does not (help|work).",
        "(Call|Contact) (us|me) (if it comes back|if you get stuck|at any time).",
        "I will check back [with you ](on|by) {day}.",
        "(Please|Do) let me know (how it goes|if that helps|by {day}).",
        "A colleague will (email|visit|call) you (on|by) {day}.",
        "I am (here|available|on duty) until {day}[ if you need (me|help)].",
    ),
    "rudeness": (
        "(Honestly, this|This|That) is [clearly |probably ]your [own ]fault.",
        "(Next time|Maybe|Just) read the manual[, {name}].",
        "I [really ]do not have time for (this|such things|you).",
        "(Stop|Quit) (complaining|whining)[, {name}].",
        "(Everyone|Any child|Anyone) knows (that|how this works).",
        "(What a|Such a) (silly|stupid|dull) question[, {name}].",
    ),
    "advertising": (
        "(Buy|Order|Get) our (new|latest|best) {appliance}[ today| now].",
        "Our new {appliance} is on sale until {day}.",
        "(This week|Only today) we (offer|give) {percent} percent off.",
        "(Upgrade|Switch) to our (gold|premium|family) plan[ today| now].",
        "(Join|Try) our (club|app) for {percent} percent off.",
        "Friends (get|earn) a {percent} percent discount[ too].",
    ),
    "filler": (
        "Thank you for (your message|writing|getting in touch)[, {name}].",
        "(Hello|Hi|Good day), {name}.",
        "I have (found|opened) your order {order}[ here| in our system].",
        "(You say that|So) your {appliance} {symptom}.",
        "The (weather|traffic|coffee) is (bad|fine|slow) [here ]today.",
        "We (sell|ship|see) many of these (every|each) (week|month).",
        "It is a (busy|quiet|long) {day} here.",
        "The {appliance} is a (popular|common|solid) model.",
        "Our office (opened|moved) (in|last) {month}.",
        "I (had|saw) (a similar|such a) case (last {month}|on {day}|this week).",
    ),
}

OWN: dict[Kind, tuple[str, ...]] = {
    "fix": (
        "Here is the step for you: {fix}.",
        "(My|Our) advice from this desk: {fix}.",
        "(I|We) would like you to {fix} now.",
        "To help you best, {fix}.",
    ),
    "empathy": (
        "(I|We) feel for you in this, {name}.",
        "(This|That) trouble is real and (I|we) see it.",
        "You do not like this, and you are right[, {name}].",
        "Not a good {day} for you[, {name}], that is clear.",
    ),
    "warranty": (
        "All costs of this are ours by (warranty|guarantee).",
        "Our guarantee is on your side (until|to) {month}.",
        "No bill for you: the (warranty|guarantee) is there.",
        "For {years} years our warranty is with you.",
    ),
    "timing": (
        "You can count on {duration} here.",
        "Give it {duration} and it is done.",
        "By {day} this will be behind you.",
        "The time to plan with is {duration}.",
    ),
    "safety": (
        "Power off, then start.",
        "Be safe: no (hot|wet) hands on it.",
        "Before all this, the plug is out.",
        "Your safety first: (gloves on|plug out|power off).",
    ),
    "follow_up": (
        "On {day} you will hear from me.",
        "We (stay|keep) in touch until {day}.",
        "If it is not well by {day}, one call is enough.",
        "My line is open for you on {day}.",
    ),
}


def templates(source: dict[Kind, tuple[str, ...]]) -> dict[Kind, tuple[Template, ...]]:
    """The same table, parsed."""
    return {kind: tuple(Template(text) for text in texts) for kind, texts in source.items()}
