"""An agent that switches lamps: the model calls functions, and their results go back to it.

::

    python examples/agent.py student-int4 "Turn the kitchen lamp on."

The arguments always match the parameters, so that a function can be called without checking them. ``--call`` makes a
call first, for models that are not trained to decide that themselves.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import sprat

LAMPS = {"kitchen": False, "hall": True}
ROOM = {"type": "string", "enum": list(LAMPS)}
TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "switch_lamp",
            "description": "Turn the lamp of a room on or off.",
            "parameters": {"properties": {"room": ROOM, "on": {"type": "boolean"}}, "required": ["room", "on"]},
        },
    },
    {
        "type": "function",
        "function": {
            "name": "lamp_is_on",
            "description": "Whether the lamp of a room is on.",
            "parameters": {"properties": {"room": ROOM}, "required": ["room"]},
        },
    },
]
MAX_TURNS = 4


def call(name: str, arguments: dict[str, Any]) -> Any:
    """Carry out one call, and return its result."""
    if name == "switch_lamp":
        LAMPS[arguments["room"]] = arguments["on"]
    return LAMPS[arguments["room"]]


def main(model: str, question: str, *, required: bool) -> None:
    """Answer ``question``, with as many calls as the model wants."""
    messages: list[Any] = [{"role": "user", "content": question}]
    choice = "required" if required else "auto"
    with sprat.load(model) as engine, engine.session() as session:
        for _ in range(MAX_TURNS):
            limits = {"max_tokens": 200, "max_thinking_tokens": 60, "close_json": True}
            reply = session.chat(messages, tools=TOOLS, tool_choice=choice, **limits)["choices"][0]["message"]
            messages, choice = [], "auto"
            for made in reply.get("tool_calls", []):
                name, arguments = made["function"]["name"], json.loads(made["function"]["arguments"])
                result = json.dumps(call(name, arguments))
                print(f"{name}({arguments}) = {result}")
                messages.append({"role": "tool", "tool_call_id": made["id"], "name": name, "content": result})
            if not messages:
                print(reply["content"])
                return
        sys.exit(f"agent: the model has made calls for {MAX_TURNS} turns")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="An agent that switches lamps.")
    parser.add_argument("model")
    parser.add_argument("question")
    parser.add_argument("--call", action="store_true", help="make a call first")
    asked = parser.parse_args()
    main(asked.model, asked.question, required=asked.call)
