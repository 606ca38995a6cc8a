"""Who may use the server: the key, the loopback address, and pages of other sites."""

import socket
from urllib.parse import urlsplit

import httpx
import pytest
from http_server import running_server

from sprat.errors import InputError
from sprat.server.settings import ServerSettings

KEY = "a secret"
CHAT = {"model": "student", "messages": [{"role": "user", "content": "What is 17 plus 25?"}]}


@pytest.fixture(scope="module")
def guarded(student):
    """A server with a key and an allowed origin."""
    with running_server({"student": student}, api_key=KEY, origins=("https://panel.example",)) as running:
        yield running


def test_a_host_that_others_reach_needs_a_key():
    with pytest.raises(InputError, match="there is no API key"):
        ServerSettings(host="0.0.0.0")
    assert ServerSettings(host="0.0.0.0", api_key=KEY).host == "0.0.0.0"
    for host in ("127.0.0.1", "127.3.2.1", "localhost", "::1", "[::1]"):
        assert ServerSettings(host=host).api_key is None


@pytest.mark.parametrize("key", ["", " ", "schlüssel"])
def test_a_key_that_no_header_can_carry_is_refused(key):
    with pytest.raises(InputError, match="API key"):
        ServerSettings(api_key=key)


@pytest.mark.parametrize(
    "wrong",
    [{"port": 70000}, {"parallel": 0}, {"queue": -1}, {"max_tokens": 0}, {"timeout": 0.0}, {"keep_alive": -1.0}],
)
def test_limits_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        ServerSettings(**wrong)


@pytest.mark.parametrize("given", [None, "Bearer wrong", "Basic YTpi", KEY, f"Bearer {KEY}x"])
@pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/api/tags", "/openapi.json", "/nothing"])
def test_without_the_key_nothing_is_answered(guarded, path, given):
    response = httpx.get(guarded.address + path, headers={"Authorization": given} if given else {})
    assert response.status_code == 401
    assert "the API key is missing or wrong" in response.text


def test_with_the_key_everything_is(guarded):
    headers = {"Authorization": f"Bearer {KEY}", "Host": "any.name:1"}
    assert httpx.get(f"{guarded.address}/v1/models", headers=headers).status_code == 200
    assert httpx.post(f"{guarded.address}/v1/chat/completions", headers=headers, json=CHAT).status_code == 200


def test_the_page_and_the_health_need_no_key(guarded):
    assert httpx.get(f"{guarded.address}/health").json() == {"status": "ok"}
    assert httpx.get(guarded.address).status_code == 200


def test_a_name_that_is_rebound_to_this_machine_is_refused(server):
    response = httpx.get(f"{server.address}/v1/models", headers={"Host": "attacker.example"})
    assert (response.status_code, response.json()["error"]["code"]) == (403, "forbidden_host")
    port = server.address.rpartition(":")[2]
    for host in ("localhost", f"localhost:{port}", "[::1]:80", "127.0.0.1"):
        assert httpx.get(f"{server.address}/v1/models", headers={"Host": host}).status_code == 200


def test_pages_of_other_sites_are_refused(server):
    response = httpx.post(
        f"{server.address}/v1/chat/completions", json=CHAT, headers={"Origin": "https://attacker.example"}
    )
    assert (response.status_code, response.json()["error"]["code"]) == (403, "forbidden_origin")
    null = httpx.get(f"{server.address}/v1/models", headers={"Origin": "null"})
    assert null.status_code == 403


def test_the_servers_own_page_is_let_in(server):
    response = httpx.get(f"{server.address}/v1/models", headers={"Origin": server.address})
    assert response.status_code == 200


def test_an_allowed_origin_gets_what_its_browser_asks_for(guarded):
    origin = {"Origin": "https://panel.example"}
    asked = {**origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    preflight = httpx.options(f"{guarded.address}/v1/chat/completions", headers=asked)
    assert preflight.headers["access-control-allow-origin"] == "https://panel.example"
    response = httpx.get(f"{guarded.address}/v1/models", headers={**origin, "Authorization": f"Bearer {KEY}"})
    assert response.headers["access-control-allow-origin"] == "https://panel.example"
    other = httpx.options(f"{guarded.address}/v1/models", headers={**asked, "Origin": "https://other.example"})
    assert other.status_code == 403


def test_a_body_over_the_limit_is_refused(student):
    with running_server({"student": student}, max_body_bytes=1000) as running:
        response = httpx.post(f"{running.address}/v1/chat/completions", content=b"x" * 1001)
        assert (response.status_code, response.json()["error"]["code"]) == (413, "request_too_large")
        assert httpx.post(f"{running.address}/v1/chat/completions", json=CHAT).status_code == 200


def test_a_body_that_is_announced_over_the_limit_is_not_waited_for(guarded):
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {10**12}\r\n\r\n"
    )
    address = urlsplit(guarded.address)
    with socket.create_connection((address.hostname, address.port), timeout=20) as client:
        client.sendall(head.encode())  # and nothing of the body
        assert client.recv(100).startswith(b"HTTP/1.1 413 ")


def test_answers_are_cut_at_the_servers_limit_of_tokens(student):
    with running_server({"student": student}, max_tokens=3) as running:
        for asked in ({}, {"max_tokens": 100}):
            usage = httpx.post(f"{running.address}/v1/chat/completions", json=CHAT | asked).json()["usage"]
            assert usage["completion_tokens"] == 3
        usage = httpx.post(f"{running.address}/v1/chat/completions", json=CHAT | {"max_tokens": 2}).json()["usage"]
        assert usage["completion_tokens"] == 2


def test_an_answer_ends_at_the_servers_limit_of_time(student, slow_models):
    with running_server({"student": student}, timeout=0.2) as running:
        choice = httpx.post(f"{running.address}/v1/chat/completions", json=CHAT).json()["choices"][0]
        assert (choice["finish_reason"], set(choice["message"]["content"])) == ("length", {"a"})
