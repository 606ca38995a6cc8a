"""Plain prose: a few sentences about an everyday thing.

Only the questions are generated here. A larger teacher writes the answers (``examples/train_student``); some of its
answers to held-out questions are packaged: `held_out_texts`.

A question is a template filled with a topic. Topics are held out as a whole, so no held-out question differs from a
training question only in its template.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

from sprat.demo.tasks.split import Problem, Split, split_of
from sprat.demo.tasks.wording import phrases

__all__ = ["HELD_OUT_FILE", "TOPICS", "held_out_texts", "problems"]

HELD_OUT_FILE = Path(__file__).with_name("prose_held_out.jsonl")
"""JSON lines with ``prompt`` and the teacher's ``answer``."""

_THINGS = phrases("""
    a kitchen table | a wooden chair | a kettle | a refrigerator | an oven | a toaster | a dishwasher
    a washing machine | a vacuum cleaner | a broom | a mop | a bucket | a lamp | a candle | a light bulb | a radio
    a television | a telephone | a clock on the wall | an alarm clock | a mirror | a bookshelf | a sofa | a bed
    a pillow | a blanket | a curtain | a carpet | a window | a front door | a key | a doorbell | a mailbox
    a garden gate | a fence | a ladder | a hammer | a toolbox | a pair of scissors | a needle and thread | an iron
    a laundry basket | a towel | a toothbrush | a bar of soap | a hairbrush | a bathtub | a shower | a sink
    a water tap | a frying pan | a cooking pot | a wooden spoon | a sharp knife | a cutting board | a teapot
    a coffee cup | a glass of water | a plate | a bowl of soup | a lunch box | a backpack | an umbrella
    a raincoat | a warm coat | a pair of shoes | a wool sweater | a hat | a scarf | a bicycle | a car | a bus
    a train | a shopping bag | a wallet | a pencil | a notebook | a letter | a newspaper | a calendar
    a photo album | a camera | a guitar | a piano | a ball | a board game | a kite | a doll | a puzzle
    a flower pot | a watering can | a shovel | a thermostat | a heater | a fan | a smoke alarm | a battery
    a flashlight | a fireplace | a garden hose
""")
_PLACES = phrases("""
    a kitchen | a living room | a bedroom | a bathroom | a basement | an attic | a garage | a garden | a balcony
    a small apartment | a farm house | a library | a school | a classroom | a bakery | a grocery store | a market
    a post office | a bank | a hospital | a train station | a bus stop | a park | a playground | a swimming pool
    a beach | a lake | a river | a forest | a mountain path | a quiet street | a busy city | a village
    a restaurant | a cafe | a museum | a zoo | a farm | an office | a workshop
""")
_ACTIVITIES = phrases("""
    washing the dishes | doing the laundry | making the bed | cleaning the windows | sweeping the floor
    cooking dinner | baking bread | making tea | making coffee | cooking rice | peeling potatoes
    setting the table | packing a lunch | watering plants | planting seeds | mowing the lawn | raking leaves
    painting a wall | fixing a leaking tap | changing a light bulb | hanging a picture | sewing a button
    ironing a shirt | folding clothes | tidying a room | taking out the trash | recycling | shopping for food
    writing a letter | reading a book | listening to music | playing cards | riding a bicycle | going for a walk
    running in the park | swimming | fishing | camping | taking a photo | drawing a picture | learning to cook
    learning a language | learning to swim | brushing your teeth | taking a shower | going to bed early
    waking up early | eating breakfast | having a picnic | visiting grandparents | feeding a cat | walking a dog
    caring for a baby | helping a neighbor | moving to a new house | saving money | saving water
    saving electricity | planning a trip | waiting for the bus | driving in the rain | building a snowman
    celebrating a birthday | cooking for friends | keeping a diary
""")
_NATURE = phrases("""
    a rainy day | a sunny morning | a cold winter night | a windy afternoon | the first snow | a thunderstorm
    fog in the morning | spring | summer | autumn | winter | the sunrise | the sunset | the moon | the stars
    clouds | rain | snow | wind | a rainbow | a cat | a dog | a bird | a horse | a cow | a chicken | a rabbit
    a goldfish | a bee | a butterfly | a spider | a frog | an apple tree | a rose | a sunflower | an oak tree
    grass | tomatoes | carrots | apples | oranges | bread | milk | cheese | eggs | rice | soup | honey | salt
    chocolate | tea | coffee
""")
_PEOPLE = phrases("""
    a baker | a teacher | a nurse | a doctor | a farmer | a gardener | a carpenter | a bus driver | a mail carrier
    a firefighter | a cook | a plumber | an electrician | a librarian | a shopkeeper | a good neighbor
    a kind friend | a grandmother | a grandfather | a young student | a busy mother | a happy child
    an old fisherman | a painter | a musician
""")

_DESCRIBE = phrases("""
    Write a few sentences about {}. | Describe {} in simple words. | Tell me about {}.
    Write a short paragraph about {}. | Write three plain sentences about {}. | What can you say about {}?
    Write a very short story about {}. | Write a short story for children about {}.
""")
_BY_KIND: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (_THINGS, (*_DESCRIBE, "What is {} used for?", "How should I take care of {}?", "Why is {} useful at home?")),
    (_PLACES, (*_DESCRIBE, "What do people do in {}?", "What can you see in {}?")),
    (
        _ACTIVITIES,
        (*_DESCRIBE, "Give me some advice about {}.", "Why do people like {}?", "Explain the steps of {} briefly."),
    ),
    (_NATURE, (*_DESCRIBE, "Why is {} important?", "What do people like about {}?")),
    (_PEOPLE, (*_DESCRIBE, "What does {} do all day?", "Describe a day in the life of {}.")),
)

TOPICS: tuple[str, ...] = tuple(topic for topics, _ in _BY_KIND for topic in topics)
_QUESTIONS = tuple((template, topic) for topics, templates in _BY_KIND for topic in topics for template in templates)


def problems(split: Split, *, seed: int = 0) -> Iterator[Problem]:
    """Every question of `split` once, shuffled by `seed`; the answers are empty."""
    questions = [(template, topic) for template, topic in _QUESTIONS if split_of(topic) is split]
    random.Random(f"prose/{split.value}/{seed}").shuffle(questions)
    for template, topic in questions:
        yield Problem(prompt=template.format(topic), answer="", kind="prose")


def held_out_texts(*, limit: int | None = None) -> list[Problem]:
    """The teacher's answers to held-out questions, for perplexity; at most `limit` of them."""
    lines = HELD_OUT_FILE.read_text(encoding="utf-8").splitlines()[:limit]
    rows = [json.loads(line) for line in lines]
    return [Problem(prompt=row["prompt"], answer=row["answer"], kind="prose") for row in rows]
