"""The OpenAPI document, and requests made from it: nothing valid fails, nothing invalid is a server's error."""

import httpx
import pytest
from http_server import running_server

from sprat.server.application import ROUTES

PLAIN = {"/", "/openapi.json"}  # the page, and the document itself


def test_the_document_has_every_route(server):
    document = httpx.get(f"{server.address}/openapi.json").json()
    described = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    served = {(method, path.replace(":path", "")) for method, path, _ in ROUTES if path not in PLAIN}
    assert described == served


def test_fields_have_their_limits(server):
    schemas = httpx.get(f"{server.address}/openapi.json").json()["components"]["schemas"]
    temperature = schemas["ChatRequest"]["properties"]["temperature"]["anyOf"]
    assert {"type": "number", "minimum": 0, "maximum": 2} in temperature
    assert schemas["ChatRequest"]["additionalProperties"] == {"type": "null"}


@pytest.fixture(scope="module")
def short_answers(student):
    with running_server({"student": student}, max_tokens=2, timeout=10.0) as running:
        yield running


MESSAGES = [{"role": "user", "content": "hi"}]
STREAMS = {
    "/v1/chat/completions": {"model": "student", "messages": MESSAGES},
    "/v1/completions": {"model": "student", "prompt": "hi"},
    "/v1/responses": {"model": "student", "input": "hi"},
    "/api/chat": {"model": "student", "messages": MESSAGES},
}


@pytest.mark.slow
@pytest.mark.parametrize("path", STREAMS)
def test_streams_are_described(short_answers, path):
    schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis: pip install schemathesis")
    from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

    schema = schemathesis.openapi.from_url(f"{short_answers.address}/openapi.json")
    case = schema[path]["POST"].Case(body={**STREAMS[path], "stream": True}, media_type="application/json")
    response = case.call_and_validate(checks=[content_type_conformance, response_schema_conformance])
    assert response.headers["content-type"][0].startswith(("text/event-stream", "application/x-ndjson"))
    assert response.status_code == 200


@pytest.mark.slow
def test_requests_made_from_the_document_get_responses_that_it_describes(short_answers):
    schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis: pip install schemathesis")
    import hypothesis
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        negative_data_rejection,
        response_schema_conformance,
        status_code_conformance,
        unsupported_method,
    )

    checks = [
        not_a_server_error,
        status_code_conformance,
        content_type_conformance,
        response_schema_conformance,
        negative_data_rejection,
        unsupported_method,
    ]
    schema = schemathesis.openapi.from_url(f"{short_answers.address}/openapi.json")
    modes = schemathesis.GenerationMode
    n_operations = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        n_operations += 1
        for mode in (modes.POSITIVE, modes.NEGATIVE):
            if mode is modes.NEGATIVE and operation.method.upper() == "GET":
                continue  # any name is a valid one

            @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
            @hypothesis.settings(max_examples=25, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
            def check(case):
                case.call_and_validate(checks=checks, timeout=60)

            check()
    assert n_operations == len(ROUTES) - len(PLAIN)
