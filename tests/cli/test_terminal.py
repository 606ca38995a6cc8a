"""Progress in a log file."""

from sprat.cli.output.terminal import progress_bar
from sprat.progress import Progress


def test_without_a_terminal_progress_is_a_line_at_every_10_percent(capsys):
    with progress_bar("exporting") as show:
        for what in ("reading", "writing"):
            for done in range(0, 101, 5):
                show(Progress(done, 100, what))
    lines = capsys.readouterr().err.splitlines()
    expected = [f"exporting: {tenth}0% {what}" for what in ("reading", "writing") for tenth in range(1, 11)]
    assert lines == expected


def test_quiet_prints_nothing(capsys):
    with progress_bar("exporting", quiet=True) as show:
        show(Progress(1, 1, "reading"))
    assert capsys.readouterr() == ("", "")


def test_bytes_are_shown(capsys):
    with progress_bar("exporting", in_bytes=True) as show:
        show(Progress(3 << 20, 6 << 20, "blk.0"))
    assert capsys.readouterr().err == "exporting: 50% 3.0 MiB of 6.0 MiB blk.0\n"


def test_a_note_is_a_line_of_its_own(capsys):
    with progress_bar("exporting") as show:
        show(Progress(0, 1, "reading", note="about 12 min"))
    assert capsys.readouterr().err == "exporting: about 12 min\n"
