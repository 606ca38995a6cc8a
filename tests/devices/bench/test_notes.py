from bench_records import measurement

from sprat.devices.bench.notes import gather_notes
from sprat.devices.bench.results import Work


def test_notes_that_differ_in_a_percentage_are_one_with_its_range():
    busy = "other programs used {}% of the cores meanwhile: close them and run again"
    records = [
        measurement(work=Work.prefill(64), notes=("the sensor x disappeared", busy.format(88))),
        measurement(work=Work.prefill(512), notes=(busy.format(9),)),
        measurement(work=Work.decode(16), notes=(busy.format(90), "the sensor x disappeared")),
        measurement(),
    ]
    assert gather_notes(records) == {
        "the sensor x disappeared": ["pp64", "tg16"],
        busy.format("9 to 90"): ["pp64", "pp512", "tg16"],
    }


def test_one_note_stays_as_it_is():
    assert gather_notes([measurement(notes=("17% of 40% is little",))]) == {"17% of 40% is little": ["tg128"]}
