"""How the isolated process ends, without the process: coverage cannot be written from inside its sandbox."""

import os

import pytest

from sprat.runtime.isolation import child


class EndedError(BaseException):
    """In place of the end of the process."""


@pytest.fixture
def ended(monkeypatch):
    statuses = []

    def end(status):
        statuses.append(status)
        raise EndedError

    monkeypatch.setattr(os, "_exit", end)
    return statuses


def test_an_exception_is_shown_and_the_status_is_1(ended, capsys):
    with pytest.raises(EndedError):
        child._end_with(ValueError, ValueError("a bad weight"), None)
    assert ended == [1]
    assert capsys.readouterr().err.splitlines()[-1] == "ValueError: a bad weight"


def test_the_end_has_a_status(ended):
    with pytest.raises(EndedError):
        child._end()
    assert ended == [0]


def test_a_first_request_that_is_no_model_ends_it(monkeypatch):
    monkeypatch.setattr(child, "receive_request", lambda _: None)
    monkeypatch.setattr(child, "enter_sandbox", pytest.fail)
    child.main(0, 0, 0, 0)
