import json
from itertools import islice

import pytest

from sprat.demo.tasks import Split
from sprat.demo.tasks.home import Command, is_valid, problems
from sprat.demo.tasks.home_intents import INTENTS
from sprat.demo.tasks.home_phrases import DEVICES, ROOMS


def test_a_command_as_json():
    command = Command(device="light", room="bedroom", action="set", value=40, unit="percent", delay="10m")
    expected = '{"device":"light","room":"bedroom","action":"set","value":40,"unit":"percent","delay":"10m"}'
    assert command.to_json() == expected


@pytest.mark.parametrize("split", Split)
def test_answers_use_only_known_names(split):
    for problem in islice(problems(split), 300):
        fields = json.loads(problem.answer)
        assert fields["device"] in DEVICES
        assert fields["room"] is None or fields["room"] == "all" or fields["room"] in ROOMS
        assert (fields["value"] is None) == (fields["unit"] is None)


def test_every_split_has_every_intent():
    for split in Split:
        assert {problem.kind for problem in islice(problems(split), 2500)} == {intent.name for intent in INTENTS}


def test_unseen_phrasings_are_not_among_the_training_ones():
    for intent in INTENTS:
        assert intent.unseen
        assert not set(intent.unseen) & set(intent.templates)


def test_every_name_of_a_device_means_one_device():
    spoken = [word for words in DEVICES.values() for word in words]
    assert len(spoken) == len(set(spoken))


def test_a_room_before_a_device_is_never_another_device():
    for problem in islice(problems(Split.TRAIN), 5_000):
        if "garage door" in problem.prompt.lower():
            assert json.loads(problem.answer)["device"] == "garage door", problem.prompt


@pytest.mark.parametrize("answer", ["", "light on", "[]", '{"device":"light"}', '{"device":"light"'])
def test_text_that_is_not_a_command_object_is_not_valid(answer):
    assert not is_valid(answer)
