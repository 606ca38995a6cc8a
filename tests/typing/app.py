"""An application that uses the whole public API. The type checkers read it; nothing runs it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import assert_type

import sprat
from sprat import (
    AsyncEngine,
    AsyncSession,
    DeviceError,
    DoesNotFitError,
    Engine,
    InputError,
    Session,
    SpratError,
    bench,
    estimate_export,
    evaluate,
    export,
    inspect,
    load,
    plan,
    quantize,
    report,
    serve,
    verify,
)


def deploy(source: str | Path, out: Path) -> float:
    """Export for a device, requantize, and verify."""
    estimate = estimate_export(source, out, device="rpi5-8gb")
    assert_type(estimate.size_bytes, int)
    assert_type(estimate.missing_bytes, int)
    result = export(source, out, device="rpi5-8gb", formats=("gguf", "onnx"), tensor_rules=["ffn_down_exps=q5_0"])
    assert_type(result.path, Path)
    assert_type(result.bits_per_weight, float)
    again = sprat.export("demo", "out", quant="int4", force=True)
    assert result.plan is None or result.plan.runs
    smaller = quantize(
        next(again.path.glob("*.gguf")), out / "small.gguf", quant="q4_k", progress=lambda now: print(now.done)
    )
    print(smaller.file.path, [group.role for group in smaller.fallbacks])
    verification = verify(out, source, backends=["native"], max_kld=0.05, max_tokens=512)
    assert_type(verification.passed, bool)
    return verification.quality["native"].mean_kld


async def answer_many(path: Path, questions: list[str]) -> list[str]:
    """Answers to all questions, generated together."""
    async with await AsyncEngine.load(path, memory="3GB", parallel=2, queue=8) as engine:
        async for chunk in engine.stream_chat([{"role": "user", "content": questions[0]}], priority=1, max_tokens=9):
            print(chunk["choices"][0]["delta"].get("content", ""))
        generation = engine.generate("Once", temperature=0)
        assert_type(await generation.text(), str)
        session = await engine.session()
        assert_type(session, AsyncSession)
        replies = [await session.chat(question) for question in questions]
    return [reply["choices"][0]["message"]["content"] for reply in replies]


def run_server(path: Path) -> None:
    """Serve until SIGTERM."""
    serve([f"student={path}"], port=8081, keep_alive=60.0, memory="3GB", on_ready=print)


def describe(path: Path) -> str:
    """What a file is."""
    found = inspect(path, check=True)
    runtimes = [runtime.name for runtime in found.runtimes if runtime.loads]
    return f"{found.architecture}, {found.bits_per_weight:.2f} bits per weight, loads in {runtimes}"


def choose_device(model: str) -> str:
    """The device with the highest predicted decode speed."""
    plans = plan(model, devices=["rpi5-8gb", "rpi4-4gb"], context=2048, memory="3GB")
    speeds = {found.profile.name: found.prediction.decode_tokens_per_s for found in plans if found.prediction}
    assert_type(speeds, dict[str, float])
    return max(speeds, key=lambda name: speeds[name])


def answer(engine: Engine, question: str) -> str:
    """One chat answer."""
    reply = engine.chat([{"role": "user", "content": question}], max_tokens=200, temperature=0.0, stop=["\n\n"])
    message = reply["choices"][0]["message"]
    assert_type(message["content"], str)
    print(message.get("reasoning_content", ""))
    return message["content"]


def command(engine: Engine, sentence: str) -> str:
    """A command as JSON, a call, a decision, an embedding."""
    messages = [{"role": "user", "content": sentence}]
    schema = {"type": "object", "properties": {"on": {"type": "boolean"}}}
    bound = engine.chat(
        messages, response_format={"type": "json_schema", "schema": schema}, close_json=True, logprobs=True, n=2
    )
    tools = [{"type": "function", "function": {"name": "switch", "parameters": schema}}]
    called = engine.chat(messages, tools=tools, tool_choice="required", max_thinking_tokens=20)
    print(called["choices"][0]["message"].get("tool_calls"), engine.embed([sentence]).shape)
    decision = engine.decide(messages, ["on", "off"], temperature=2.0)
    assert_type(decision["on"], float)
    assert_type(decision.best, str)
    return bound["choices"][0]["message"]["content"]


def pieces(engine: Engine, prompt: str) -> Iterator[str]:
    """A continuation, piece by piece."""
    generation = engine.generate(prompt, max_tokens=50, top_p=0.9, seed=1, timeout=10.0)
    for piece in generation:
        yield piece.text
    assert_type(generation.summary.timings.predicted_per_second, float)


def talk(session: Session, lines: list[str]) -> None:
    """A conversation that keeps its cache."""
    for line in lines:
        for chunk in session.stream_chat(line):
            print(chunk["choices"][0]["delta"].get("content", ""), end="")
    session.reset()


def measure(model: Path) -> None:
    """Speed and quality, drawn as a page."""
    for record in bench(model, n_prompt=[128], n_gen=[32], depths=(0, 2048), repetitions=3):
        print(record)
    with load(model, memory="3GB", backend="native") as engine:
        score = evaluate(engine, "home", n=100, split="unseen")
        assert_type(score.exact_match, float)
        with engine.session() as session:
            talk(session, ["hello"])
    print(report(["results.jsonl", Path("plans.jsonl")], "report.html").page)


def main() -> None:
    """Errors are caught by kind."""
    print(sprat.__version__)
    try:
        deploy("demo", Path("out"))
    except DoesNotFitError as error:
        print(f"choose a smaller model: {error}")
    except (DeviceError, InputError) as error:
        print(error)
    except SpratError as error:
        raise SystemExit(str(error)) from error
