"""What answers share depends on the backend."""

import pytest

from sprat.errors import BackendError
from sprat.runtime.backends.registry import BackendChoice
from sprat.runtime.loading.sharing import prefixes_of
from sprat.runtime.memory.cache_budget import CacheBudget

LLAMACPP = BackendChoice("llamacpp")


def test_a_backend_that_gives_no_entries_shares_none():
    assert prefixes_of(True, None, LLAMACPP, None, CacheBudget(), None) is None
    assert prefixes_of(False, None, LLAMACPP, None, CacheBudget(), None) is None


def test_a_folder_for_a_backend_that_gives_no_entries_is_an_error(tmp_path):
    with pytest.raises(BackendError, match="the llamacpp backend does not give out its KV entries"):
        prefixes_of(tmp_path, None, LLAMACPP, None, CacheBudget(), None)
