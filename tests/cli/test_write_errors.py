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
