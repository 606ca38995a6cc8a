"""Stream a chat answer under a memory budget and a timeout.

::

    python examples/hello.py student-int4 "Is it warmer in Oslo or in Rome?"
"""

from __future__ import annotations

import sys

import sprat


def main(model: str, question: str) -> None:
    """Stream the answer to one question, then print the finish reason and the speed."""
    with sprat.load(model, memory="3GB") as engine:
        stream = engine.stream_chat([{"role": "user", "content": question}], max_tokens=200, timeout=60)
        for chunk in stream:
            delta = chunk["choices"][0]["delta"]
            print(delta.get("reasoning_content", ""), delta.get("content", ""), sep="", end="", flush=True)
        completion = stream.completion()
    speed = completion["timings"]["predicted_per_second"]
    print(f"\n[{completion['choices'][0]['finish_reason']}, {speed:.1f} tokens/s]")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit('hello: expected a model and a question, for example:  python examples/hello.py demo "What is 2 + 2?"')
    try:
        main(*sys.argv[1:])
    except sprat.SpratError as error:
        sys.exit(f"hello: {error}")
