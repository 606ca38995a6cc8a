"""Prefixes of a folder are mapped: they take no memory, and a file that changes meanwhile reaches no answer."""

import gc
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from native_kernels import needs_native
from reused_prompts import LONG, answer, need_of_one_cache
from tiny_engines import tiny_engine

from sprat.errors import SavedStateError
from sprat.runtime.prefix import saved_state
from sprat.runtime.prefix.folder import PrefixFolder
from sprat.runtime.prefix.saved_state import read_state

LATER = [*LONG, 7]


@pytest.fixture
def folder(tmp_path):
    """A folder with one file, that of :data:`LATER` without its last token."""
    with tiny_engine("llama", prefix_cache=tmp_path / "prefixes") as engine:
        answer(engine, LATER)
    return tmp_path / "prefixes"


def only_file(folder):
    (file,) = folder.iterdir()
    return file


def truncate(file):
    os.truncate(file, 4096)


def empty(file):
    os.truncate(file, 0)


def rewrite(file):
    with file.open("r+b") as target:
        target.seek(8192)
        target.write(np.ones(2000, np.float16).tobytes())


def rewrite_with_its_time(file):
    before = file.stat()
    rewrite(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def identity_and_cache(engine):
    with engine.session() as session:
        cache = session._transcript.cache
        return engine._identify(cache), cache


CHANGES = [truncate, empty, rewrite, rewrite_with_its_time]
every_change = pytest.mark.parametrize("change", CHANGES)


@needs_native
def test_a_mapped_prefix_takes_no_memory_and_answers_alike(folder):
    with tiny_engine("llama", prefix_cache=False) as plain, tiny_engine("llama", prefix_cache=folder) as engine:
        for end in (7, 8):
            assert answer(engine, [*LONG, end]) == (answer(plain, [*LONG, end])[0], len(LONG))
        assert engine._prefixes.nbytes <= 40 * engine._budget.cost.bytes_per_token  # the answers


@needs_native
def test_a_prefix_is_used_where_the_memory_is_full(tmp_path):
    """A session takes all that the limit leaves for caches."""
    with tiny_engine("llama", context=512, prefix_cache=tmp_path) as engine:
        answer(engine, LATER)
    with tiny_engine("llama", memory=need_of_one_cache(), context=512, prefix_cache=tmp_path) as engine:
        with engine.session() as session:
            assert answer(session, LATER)[1] == len(LONG)
        assert answer(engine, LATER)[1] == len(LONG)


@needs_native
def test_a_prefix_that_two_prompts_share_is_written_where_the_memory_is_full(tmp_path):
    options = {"memory": need_of_one_cache(), "context": 512, "prefix_cache": tmp_path}
    with tiny_engine("llama", prefix_cache=False) as plain, tiny_engine("llama", **options) as engine:
        for end, n_files, cached in ((7, 0, 0), (8, 1, 0), (9, 1, len(LONG))):
            with engine.session() as session:
                prompt = [*LONG, end]
                assert answer(session, prompt) == (answer(plain, prompt)[0], cached)
            assert len(list(tmp_path.iterdir())) == n_files


@needs_native
@every_change
def test_a_file_that_changes_while_it_is_mapped_is_a_warning_and_absent(folder, change):
    with tiny_engine("llama", prefix_cache=False) as plain, tiny_engine("llama", prefix_cache=folder) as engine:
        assert answer(engine, LATER)[1] == len(LONG)
        change(only_file(folder))
        with pytest.warns(RuntimeWarning, match=r"changed while it was in use.*the prompt is processed again"):
            assert answer(engine, [*LONG, 9]) == (answer(plain, [*LONG, 9])[0], 0)
        assert answer(engine, [*LONG, 10]) == (answer(plain, [*LONG, 10])[0], len(LONG))  # from memory
        assert read_state(only_file(folder), *identity_and_cache(engine))[0].tolist() == LONG  # written again


@needs_native
@every_change
def test_a_changed_file_is_not_written_into_another(folder, change):
    with tiny_engine("llama", prefix_cache=folder) as engine:
        answer(engine, [*LONG, *[5] * 90])
        change(only_file(folder))
        with pytest.warns(RuntimeWarning, match="the prefix was not saved"):
            engine.close()


@needs_native
@every_change
def test_a_session_whose_file_changes_while_it_is_copied_is_refused(tmp_path, monkeypatch, change):
    with tiny_engine("llama") as engine, engine.session() as session:
        expected = answer(session, LATER)[0]
        session.save(tmp_path / "session")
        check = saved_state._check_plane

        def check_and_change(path, plane, *others):
            check(path, plane, *others)
            if plane == 1:
                change(path)

        monkeypatch.setattr(saved_state, "_check_plane", check_and_change)
        with pytest.raises(SavedStateError, match="session: the file changed while it was in use"):
            session.restore(tmp_path / "session")
        assert answer(session, LATER)[0] == expected


def test_engines_that_share_a_folder_do_not_take_use_for_change(folder):
    with (
        warnings.catch_warnings(action="error"),
        tiny_engine("llama", prefix_cache=folder) as one,
        tiny_engine("llama", prefix_cache=folder) as two,
    ):
        for end in range(2, 6):
            assert answer(one, [*LONG, end])[1] == answer(two, [*LONG, end])[1] == len(LONG)


def test_other_answers_go_on_while_a_file_is_read(folder, monkeypatch):
    read, started, may_end = PrefixFolder.read, threading.Event(), threading.Event()

    def wait_and_read(*arguments):
        started.set()
        assert may_end.wait(10)
        return read(*arguments)

    monkeypatch.setattr(PrefixFolder, "read", wait_and_read)
    with tiny_engine("llama", prefix_cache=folder) as engine:
        cached = []
        threads = [threading.Thread(target=lambda: cached.append(answer(engine, LATER)[1])) for _ in range(2)]
        for thread in threads:
            thread.start()
        assert started.wait(10)
        assert answer(engine, [9, 8, 7])[1] == 0
        may_end.set()
        for thread in threads:
            thread.join()
        assert cached == [len(LONG)] * 2


def test_a_file_of_another_user_is_used(folder, monkeypatch):
    """Its times cannot be set."""

    def refuse(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "utime", refuse)
    with tiny_engine("llama", prefix_cache=folder) as engine:
        assert answer(engine, LATER)[1] == len(LONG)


@needs_native
def test_a_deleted_file_does_not_stay_mapped(folder):
    def maps():
        gc.collect()
        return Path("/proc/self/maps").read_text().count(".sprat-prefix")

    with tiny_engine("llama", prefix_cache=folder, context=256) as engine:
        answer(engine, LATER)
        assert maps() == 1
        for start in range(2, 12):
            for end in (7, 8):  # a second prompt, so that the prefix is written
                answer(engine, [start, *LONG, *LONG[:90], end])
        assert maps() == 0


def test_without_the_native_core_a_prefix_is_read_and_counted(folder):
    program = (
        "import sys; from tiny_engines import tiny_engine; from reused_prompts import LONG, answer\n"
        "with tiny_engine('llama', prefix_cache=sys.argv[1]) as engine:\n"
        "    assert answer(engine, [*LONG, 7])[1] == len(LONG)\n"
        "    assert engine._prefixes.nbytes >= len(LONG) * engine._budget.cost.bytes_per_token\n"
    )
    environment = {**os.environ, "SPRAT_NATIVE": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program, str(folder)], env=environment, check=True)
