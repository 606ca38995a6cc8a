"""Many clients at a time: the same answers as alone, no slot lost to one that vanishes, a queue that says no."""

import json
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from http_server import running_server

import sprat

QUESTIONS = ["What is 17 plus 25?", "Turn on the kitchen light", "What is 3 times 12?", "lights off in the bedroom"] * 2


def body(question, **options):
    return {"model": "m", "messages": [{"role": "user", "content": question}], "temperature": 0, **options}


def answer(server, question):
    response = httpx.post(f"{server.address}/v1/chat/completions", json=body(question), timeout=120)
    return response.json()["choices"][0]["message"]


def test_eight_clients_get_the_answers_that_each_gets_alone(server):
    alone = [answer(server, question) for question in QUESTIONS]
    with ThreadPoolExecutor(8) as clients:
        assert list(clients.map(lambda question: answer(server, question), QUESTIONS)) == alone


def raw_request(server, *, stream):
    """A connection that has sent a request and reads nothing."""
    content = json.dumps(body("x", stream=stream)).encode()
    host, port = server.address.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)))
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(content)}\r\n\r\n"
    connection.sendall(head.encode() + content)
    return connection


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_vanishes_frees_its_slot(student, slow_models, stream):
    with running_server({"m": student}, parallel=1, queue=1) as running:
        connection = raw_request(running, stream=stream)
        running.wait_until(lambda: running.engine() and running.engine().n_running == 1)
        waiting = raw_request(running, stream=stream)
        running.wait_until(lambda: running.engine().n_waiting == 1)
        waiting.close()
        running.wait_until(lambda: running.engine().n_waiting == 0)
        connection.close()
        running.wait_until(lambda: running.engine().n_running == 0)
        assert all(seen.closed for seen in running.engine().engine.backend.streams)


def test_one_request_more_than_the_queue_holds_is_told_when_to_come_back(student, slow_models):
    with running_server({"m": student}, parallel=1, queue=0) as running:
        connection = raw_request(running, stream=True)
        running.wait_until(lambda: running.engine() and running.engine().n_running == 1)
        for stream in (False, True):
            response = httpx.post(f"{running.address}/v1/chat/completions", json=body("x", stream=stream))
            assert (response.status_code, response.json()["error"]["type"]) == (429, "rate_limit_error")
            assert int(response.headers["retry-after"]) >= 1
        connection.close()


def test_the_server_answers_other_requests_while_it_generates(student, slow_models):
    with running_server({"m": student}) as running:
        connection = raw_request(running, stream=True)
        running.wait_until(lambda: running.engine() and running.engine().n_running == 1)
        assert httpx.get(f"{running.address}/health").status_code == 200
        metrics = httpx.get(f"{running.address}/metrics").text
        assert 'sprat_running{model="m"} 1.0' in metrics
        connection.close()
        running.wait_until(lambda: running.engine().n_running == 0)


def test_metrics_count_requests_tokens_and_reasons(server):
    before = httpx.get(f"{server.address}/metrics").text
    usage = httpx.post(f"{server.address}/v1/chat/completions", json=body("What is 17 plus 25?")).json()["usage"]
    httpx.post(f"{server.address}/v1/chat/completions", json={})
    after = httpx.get(f"{server.address}/metrics").text

    def grown(name):
        return value(after, name) - value(before, name)

    assert grown('sprat_generated_tokens_total{model="student"}') == usage["completion_tokens"]
    assert grown('sprat_answers_total{finish_reason="stop",model="student"}') == 1
    assert grown('sprat_requests_total{route="/v1/chat/completions",status="400"}') == 1
    assert value(after, "process_resident_memory_bytes") > 1e6


def value(metrics, name):
    found = [line for line in metrics.splitlines() if line.startswith(f"{name} ")]
    return float(found[0].rpartition(" ")[2]) if found else 0.0


def test_an_error_in_the_middle_of_a_stream_is_an_event(student, monkeypatch):
    import numpy as np
    from scripted_model import scripted_engine

    def broken(tokens):
        return np.full(260, np.nan if len(tokens) > 20 else 0, np.float32)

    monkeypatch.setattr("sprat.server.model_pool.load", lambda *_, **__: scripted_engine(broken))
    with running_server({"m": student}) as running:
        response = httpx.post(f"{running.address}/v1/chat/completions", json=body("x", stream=True))
        events = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
    assert json.loads(events[-1])["error"]["type"] == "server_error"


@pytest.mark.slow
def test_memory_stays_flat(student):
    """Resident memory after 300 requests is that after 100, within a megabyte, in a process of its own."""
    program = f"""
import httpx, resource
from pathlib import Path
from http_server import running_server
def rss(): return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
with running_server({{"m": Path({str(student)!r})}}) as server, httpx.Client() as client:
    def ask(times):
        for number in range(times):
            message = [{{"role": "user", "content": f"What is {{number % 90 + 10}} plus 25?"}}]
            body = {{"model": "m", "messages": message, "max_tokens": 4}}
            response = client.post(server.address + "/v1/chat/completions", json=body)
            assert response.status_code == 200
        return rss()
    before = ask(100)
    print(before, ask(200))
"""
    if not sys.platform.startswith("linux"):
        pytest.skip("reads /proc")
    paths = [str(Path(sprat.__file__).parents[1]), str(Path(__file__).parents[1] / "support")]
    environment = {"PYTHONPATH": ":".join([*paths, *sys.path])}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    before, after = map(int, done.stdout.split())
    assert after - before < 1 << 20


def test_embeddings_end_at_the_time_limit(student):
    with running_server({"student": student}, timeout=0.01) as running:
        body = {"model": "student", "input": ["light " * 300] * 200}
        response = httpx.post(f"{running.address}/v1/embeddings", json=body, timeout=60)
        assert (response.status_code, response.json()["error"]["type"]) == (503, "server_error")
        assert "over 0.01 s" in response.json()["error"]["message"]
        assert httpx.post(f"{running.address}/v1/embeddings", json=body | {"input": []}).status_code == 400
