"""Answers sampled from random logits under random schemas are valid, by ``jsonschema``."""

import functools
import json
import os

import jsonschema
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from json_schemas import SCHEMAS, TREE
from scripted_model import ScriptedBackend, byte_tokenizer

import sprat
from sprat.runtime.engine import Engine

CHECKS = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
MANY_CHECKS = settings(CHECKS, max_examples=5000 if os.environ.get("SPRAT_ATTACK") == "whole" else 150)
EVERYTHING = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}


asked = given(
    schema=SCHEMAS | st.just(TREE),
    temperature=st.sampled_from([0.0, 1.0, 2.0]),
    seed=st.integers(0, 2**32),
    max_tokens=st.sampled_from([40, 150]),
)


@functools.cache
def engine(name):
    """An engine with random logits that depend on the last tokens, over the tokens of bytes or of the student."""
    if name == "bytes":
        tokenizer = byte_tokenizer()
    else:
        with sprat.load("demo") as student:
            tokenizer = student.tokenizer
    table = np.random.default_rng(0).standard_normal((64, tokenizer.vocab_size), np.float32)
    backend = ScriptedBackend(lambda tokens: table[hash(tuple(tokens[-3:])) % 64], max_context=4000)
    backend.vocab_size = tokenizer.vocab_size
    return Engine(backend, tokenizer)


def answer(name, schema, **options):
    response_format = {"type": "json_schema", "json_schema": {"name": "any", "schema": schema}}
    generation = engine(name).generate("x", response_format=response_format, **EVERYTHING, **options)
    text = generation.text()
    return text, generation.summary


def check(name, schema, temperature, seed, max_tokens):
    """One answer that may be cut, and one that is closed."""
    validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)
    options = {"temperature": temperature, "seed": seed, "max_tokens": max_tokens}
    text, summary = answer(name, schema, **options)
    if summary.finish_reason == "stop":
        validator.validate(json.loads(text))
    else:
        assert (summary.finish_reason, summary.usage.completion_tokens) == ("length", max_tokens)
    try:
        text, summary = answer(name, schema, close_json=True, **options)
    except sprat.InputError:  # no answer is so short
        return
    validator.validate(json.loads(text))
    assert summary.finish_reason == "stop"
    assert summary.usage.completion_tokens <= max_tokens


@pytest.mark.parametrize("name", ["bytes", "student"])
@asked
@CHECKS
def test_a_finished_answer_is_valid(name, schema, temperature, seed, max_tokens):
    check(name, schema, temperature, seed, max_tokens)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bytes", "student"])
@asked
@MANY_CHECKS
def test_many_finished_answers_are_valid(name, schema, temperature, seed, max_tokens):
    check(name, schema, temperature, seed, max_tokens)
