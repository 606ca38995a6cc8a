"""The vocabulary of the smart-home task: rooms, devices, values, delays and polite phrases."""

from __future__ import annotations

import random

from sprat.demo.tasks.home_intents import Intent
from sprat.demo.tasks.wording import phrases

__all__ = [
    "DEVICES",
    "EVERYWHERE",
    "ON",
    "POLITENESS",
    "REQUESTS",
    "ROOMLESS",
    "ROOMS",
    "UNSEEN_POLITENESS",
    "UNSEEN_REQUESTS",
    "draw_delay",
    "draw_value",
    "is_request",
]

ROOMS: dict[str, tuple[str, ...]] = {
    "kitchen": ("kitchen",),
    "living room": ("living room", "lounge", "sitting room"),
    "bedroom": ("bedroom",),
    "guest room": ("guest room", "spare room"),
    "kids room": ("kids room", "children's room", "nursery"),
    "bathroom": ("bathroom", "bath"),
    "toilet": ("toilet", "restroom"),
    "dining room": ("dining room",),
    "hallway": ("hallway", "hall", "corridor"),
    "entrance": ("entrance", "entry"),
    "office": ("office", "study"),
    "basement": ("basement", "cellar"),
    "attic": ("attic", "loft"),
    "garage": ("garage",),
    "garden": ("garden", "backyard"),
    "balcony": ("balcony",),
    "terrace": ("terrace", "patio"),
    "laundry room": ("laundry room",),
    "library": ("library",),
    "workshop": ("workshop",),
    "gym": ("gym",),
    "playroom": ("playroom",),
    "pantry": ("pantry",),
    "stairs": ("stairs", "staircase"),
    "winter garden": ("winter garden",),
    "utility room": ("utility room",),
}
"""Canonical name: how it is said."""

ON = frozenset({"balcony", "terrace", "patio", "stairs", "staircase"})
"""Rooms in which one is "on the", not "in the"."""

EVERYWHERE = phrases("""
    everywhere | in every room | in all rooms | in the whole house | all over the house
""")

DEVICES: dict[str, tuple[str, ...]] = {
    "light": ("light", "lights", "lighting", "ceiling light"),
    "lamp": ("lamp", "floor lamp", "table lamp"),
    "led strip": ("led strip", "light strip"),
    "fan": ("fan", "ventilator", "ceiling fan"),
    "heater": ("heater", "radiator", "heating"),
    "thermostat": ("thermostat",),
    "air conditioner": ("air conditioner", "air conditioning", "ac"),
    "humidifier": ("humidifier",),
    "air purifier": ("air purifier", "air cleaner"),
    "blinds": ("blinds", "shutters"),
    "curtains": ("curtains", "drapes"),
    "window": ("window", "skylight"),
    "door": ("door",),
    "front door": ("front door",),
    "garage door": ("garage door",),
    "gate": ("gate",),
    "tv": ("tv", "television"),
    "speaker": ("speaker", "speakers"),
    "radio": ("radio",),
    "music": ("music",),
    "oven": ("oven",),
    "stove": ("stove", "cooker"),
    "kettle": ("kettle", "water boiler"),
    "coffee maker": ("coffee maker", "coffee machine"),
    "toaster": ("toaster",),
    "fridge": ("fridge", "refrigerator"),
    "dishwasher": ("dishwasher",),
    "washing machine": ("washing machine", "washer"),
    "dryer": ("dryer", "tumble dryer"),
    "vacuum": ("vacuum", "robot vacuum", "vacuum cleaner"),
    "mower": ("mower", "lawn mower"),
    "sprinkler": ("sprinkler", "sprinklers"),
    "alarm": ("alarm", "burglar alarm"),
    "camera": ("camera", "security camera"),
    "socket": ("socket", "outlet", "plug"),
    "projector": ("projector",),
    "doorbell": ("doorbell",),
}
"""Canonical name: how it is said."""

ROOMLESS = frozenset({"front door", "garage door", "gate", "mower", "doorbell"})
"""Devices of which a home has one, so that nobody names the room."""


POLITENESS: tuple[tuple[str, str], ...] = (
    *[("", "")] * 6,
    ("hey, ", ""),
    ("ok, ", ""),
    ("hello, ", ""),
    ("computer, ", ""),
    ("house, ", ""),
    ("", " please"),
    ("", " now"),
    ("", ", thanks"),
    ("", ", thank you"),
)
"""Prefixes and suffixes of any sentence."""
REQUESTS: tuple[tuple[str, str], ...] = (
    ("please ", ""),
    ("could you ", "?"),
    ("can you ", "?"),
    ("would you ", "?"),
    ("now ", ""),
    ("can you please ", "?"),
    ("could you please ", "?"),
    ("would you please ", "?"),
    ("hey, could you ", "?"),
    ("i'd like you to ", ""),
    ("i want you to ", ""),
    ("be so kind and ", ""),
    ("go ahead and ", ""),
    ("hi, please ", ""),
    ("just ", ""),
    ("quickly ", ""),
    ("can we ", "?"),
    ("let's ", ""),
    ("you should ", ""),
)
"""Prefixes and suffixes of a sentence that begins with a verb."""
UNSEEN_POLITENESS: tuple[tuple[str, str], ...] = (
    ("excuse me, ", ""),
    ("", " if you can"),
    ("my friend, ", ""),
    ("", ", will you?"),
)
UNSEEN_REQUESTS: tuple[tuple[str, str], ...] = (
    ("do me a favor and ", ""),
    ("would it be possible to ", "?"),
    ("i ask you to ", ""),
)

_STATEMENTS = ("{device}", "{value}", "i ", "i'd ", "it ", "it's ", "we ", "no one ", "more ", "less ", "see to ")


def is_request(template: str) -> bool:
    """Whether `template` begins with a verb, so that "could you" may stand before it."""
    return not template.startswith(_STATEMENTS)


_COLORS = phrases("""
    red | green | blue | yellow | orange | purple | pink | white | warm white | cold white | turquoise | violet
""")
_WORDS = {
    1: "one",
    2: "two",
    3: "three",
    4: "four",
    5: "five",
    6: "six",
    7: "seven",
    8: "eight",
    9: "nine",
    10: "ten",
    12: "twelve",
    15: "fifteen",
    20: "twenty",
    25: "twenty five",
    30: "thirty",
    40: "forty",
    45: "forty five",
    50: "fifty",
    60: "sixty",
    70: "seventy",
    75: "seventy five",
    80: "eighty",
    90: "ninety",
    100: "one hundred",
    18: "eighteen",
    19: "nineteen",
    21: "twenty one",
    22: "twenty two",
    23: "twenty three",
}
_UNITS = {"percent": ("percent", "%", "per cent"), "celsius": ("degrees", "degrees celsius", "°", "°C")}
_DELAYS = (
    ("s", "second", (5, 10, 15, 20, 30, 40, 45, 50)),
    ("m", "minute", tuple(range(1, 61))),
    ("h", "hour", tuple(range(1, 13))),
)
_DELAY_FORMS = phrases("""
    in {} | in {} | after {} | {} from now | with a delay of {} | {} later
""")


def draw_value(rng: random.Random, intent: Intent) -> tuple[int | str | None, str]:
    """A value that suits `intent`, and how it is said; (None, "") when it takes none."""
    if intent.unit == "color":
        color = rng.choice(_COLORS)
        return color, color
    if intent.unit is None or intent.values is None:
        return None, ""
    low, high, step = intent.values
    # Round numbers are usual, any number is possible.
    value = rng.randrange(low, high + 1, step if rng.random() < 0.7 else 1)
    unit = rng.choice(_UNITS[intent.unit])
    if (unit.isascii() and unit.isalpha()) or " " in unit:
        spoken = _WORDS[value] if value in _WORDS and rng.random() < 0.35 else str(value)
        return value, f"{spoken} {unit if value != 1 else unit.replace('degrees', 'degree')}"
    return value, f"{value}{unit}"


def draw_delay(rng: random.Random) -> tuple[str, str]:
    """A delay as the answer spells it ("10m") and as it is said ("in ten minutes")."""
    suffix, noun, amounts = rng.choice(_DELAYS)
    amount = rng.choice(amounts)
    spoken = _WORDS[amount] if amount in _WORDS and rng.random() < 0.4 else str(amount)
    phrase = f"{spoken} {noun}" + ("s" if amount > 1 else "")
    if (suffix, amount) == ("h", 1) and rng.random() < 0.5:
        phrase = "an hour"
    return f"{amount}{suffix}", rng.choice(_DELAY_FORMS).format(phrase)
