"""Failed calls of the C library are errors with its reason."""

import os

import pytest

from sprat.runtime.sandbox.system_call import checked, libc


def test_a_failed_call_is_an_error_with_its_reason():
    with pytest.raises(FileNotFoundError, match=rf"open: {os.strerror(2)}"):
        checked(libc.open(b"/no/such/file", os.O_RDONLY), "open")


def test_a_result_is_returned():
    assert checked(libc.getpid(), "getpid") == os.getpid()
