"""Output that cannot be written ends a command with one line and exit code 2."""

import os
import pathlib
import subprocess
import sys

import pytest

COMMANDS = [
    ["--help"],
    ["--version"],
    ["devices"],
    ["devices", "--json"],
    ["run", "--help"],
    ["doctor"],
    ["plan", "demo"],
]


def sprat(arguments, redirection):
    command = [sys.executable, "-m", "sprat", *arguments]
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", *command], stderr=subprocess.PIPE, text=True, check=False
    )


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_full_device_is_one_line(arguments):
    ran = sprat(arguments, "> /dev/full")
    assert (ran.returncode, ran.stderr) == (2, "sprat: the output cannot be written: No space left on device\n")


@pytest.mark.parametrize("arguments", COMMANDS[:3], ids=" ".join)
def test_a_closed_output_is_one_line(arguments):
    ran = sprat(arguments, ">&-")
    assert ran.returncode == 2
    assert ran.stderr == "sprat: standard output is closed; redirect it to a file or to /dev/null\n"


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_reader_that_has_ended_is_one_line(arguments):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "sprat", *arguments]
    ran = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (ran.returncode, ran.stderr) == (2, "sprat: the output cannot be written: Broken pipe\n")


@pytest.mark.parametrize("redirection", ["2> /dev/full", "2>&-"])
@pytest.mark.parametrize(("arguments", "status"), [(["devices"], 0), (["plan", "nothing"], 2), (["run", "--help"], 0)])
def test_messages_that_cannot_be_written_change_no_result(arguments, status, redirection):
    if "full" in redirection and not pathlib.Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    command = ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-m", "sprat", *arguments]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    assert ran.returncode == status
    assert bool(ran.stdout) == (status == 0)


def test_results_and_messages_on_a_full_device_end_with_2():
    assert sprat(["devices"], "> /dev/full 2> /dev/full").returncode == 2


@pytest.mark.parametrize("command", ["chat", "run"])
def test_a_closed_input_is_one_line(command):
    arguments = [command, "demo", *(["-"] if command == "run" else [])]
    ran = sprat(arguments, "<&- > /dev/null")
    assert ran.returncode == 2
    assert ran.stderr.splitlines()[-1].startswith("sprat: standard input is closed")
