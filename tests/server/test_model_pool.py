"""Several models by name: loaded when they are asked for, unloaded when they are not used, within one limit."""

import httpx
import pytest
from http_server import running_server
from scripted_model import saying, scripted_engine

import sprat
from sprat.errors import InputError
from sprat.server.model_pool import named_models


def ask(server, model):
    messages = [{"role": "user", "content": "What is 17 plus 25?"}]
    options = {"model": model, "messages": messages, "max_tokens": 4}
    return httpx.post(f"{server.address}/v1/chat/completions", json=options, timeout=120)


def loaded(server):
    data = httpx.get(f"{server.address}/v1/models").json()["data"]
    return {model["id"] for model in data if model["loaded"]}


def test_names_are_those_of_files_unless_they_are_given(student, tmp_path):
    other = tmp_path / "Small.gguf"
    other.write_bytes(b"GGUF")
    assert named_models([str(student), str(other), f"b={student}"]) == {
        "student": student,
        "Small": other,
        "b": student,
    }


def test_two_of_one_name_and_none_at_all_are_refused(student):
    with pytest.raises(InputError, match="two models are called 'student'"):
        named_models([str(student), str(student)])
    with pytest.raises(InputError, match="no model to serve"):
        named_models([])


def test_the_packaged_student_is_served_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    paths = named_models(["demo"])
    assert paths["demo"].is_relative_to(tmp_path)


def test_a_model_is_loaded_when_a_request_names_it(student):
    with running_server({"a": student, "b": student}) as running:
        assert loaded(running) == set()
        assert ask(running, "b").json()["model"] == "b"
        assert loaded(running) == {"b"}
        ask(running, "a")
        assert loaded(running) == {"a", "b"}


def test_an_unknown_name_is_a_404_among_several_and_the_only_model_alone(student):
    with running_server({"a": student, "b": student}) as running:
        response = ask(running, "c")
        assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")
        assert "a, b" in response.json()["error"]["message"]
    with running_server({"a": student}) as running:
        assert ask(running, "gpt-4o").json()["model"] == "a"


def test_a_model_that_is_not_used_is_unloaded_after_keep_alive(student):
    with running_server({"a": student}, keep_alive=0.1) as running:
        ask(running, "a")
        running.wait_until(lambda: not loaded(running))
        assert ask(running, "a").status_code == 200


def test_a_model_in_use_is_not_unloaded(student, monkeypatch, slow_models):
    with running_server({"a": student}, keep_alive=0.0, timeout=0.5) as running:
        choice = httpx.post(
            f"{running.address}/v1/chat/completions",
            json={"model": "a", "messages": [{"role": "user", "content": "x"}]},
            timeout=60,
        ).json()["choices"][0]
        assert choice["finish_reason"] == "length"
        running.wait_until(lambda: not loaded(running))


@pytest.fixture(scope="module")
def one_answer_bytes(student):
    with sprat.load(student) as engine:
        assert engine.needed_bytes(2) > engine.needed_bytes(1) > 1e7
        return engine.needed_bytes(1)


def test_the_longest_unused_gives_way_where_the_memory_is_for_one(student, one_answer_bytes):
    with running_server({"a": student, "b": student}, memory=int(1.5 * one_answer_bytes)) as running:
        for name in ("a", "b", "a"):
            assert ask(running, name).status_code == 200
            assert loaded(running) == {name}


def test_both_stay_where_the_memory_is_for_both(student, one_answer_bytes):
    with running_server({"a": student, "b": student}, memory=3 * one_answer_bytes, parallel=1) as running:
        for name in ("a", "b"):
            assert ask(running, name).status_code == 200
        assert loaded(running) == {"a", "b"}
        claimed = [model.claimed_bytes for model in running.state.pool.models.values()]
        assert claimed == [one_answer_bytes, one_answer_bytes]


def test_fewer_answers_at_a_time_where_their_caches_do_not_fit(student, one_answer_bytes):
    with running_server({"a": student}, memory=one_answer_bytes, parallel=8) as running:
        assert ask(running, "a").status_code == 200
        assert running.engine().parallel == 1


def test_what_does_not_fit_at_all_is_told(student):
    with running_server({"a": student}, memory="1MB") as running:
        response = ask(running, "a")
        assert (response.status_code, response.json()["error"]["code"]) == (503, "out_of_memory")
        assert "retry-after" in response.headers


def test_a_model_that_cannot_be_loaded_is_an_error_of_its_requests(tmp_path, student):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF")
    with running_server({"a": student, "b": broken}) as running:
        assert ask(running, "b").status_code == 400
        assert ask(running, "a").status_code == 200


def test_engines_without_a_known_size_are_served_as_well(student, monkeypatch):
    monkeypatch.setattr("sprat.server.model_pool.load", lambda *_, **__: scripted_engine(saying("Paris")))
    with running_server({"a": student}, memory="1GB") as running:
        assert ask(running, "a").json()["choices"][0]["message"]["content"] == "Pari"
