"""A Wyoming service that answers sentences, for Home Assistant's voice assistants; needs wyoming.

::

    python examples/home/wyoming_handle.py student-int4 tcp://0.0.0.0:10500

In Home Assistant: Settings, Devices, Add integration, Wyoming Protocol, this machine's address and port 10500.
"""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from typing import Any

from wyoming.asr import Transcript
from wyoming.event import Event
from wyoming.handle import Handled, HandledChunk, HandledStart, HandledStop, NotHandled
from wyoming.info import Attribution, Describe, HandleModel, HandleProgram, Info
from wyoming.server import AsyncEventHandler, AsyncServer

import sprat

LIMITS: Any = {"max_tokens": 200, "timeout": 30}


class Handler(AsyncEventHandler):
    """One connection of Home Assistant."""

    def __init__(self, engine: sprat.AsyncEngine, *streams: Any) -> None:
        super().__init__(*streams)
        self.engine = engine

    async def handle_event(self, event: Event) -> bool:
        """Say what this service is, or answer a sentence."""
        if Describe.is_type(event.type):
            await self.write_event(about(self.engine.engine.name).event())
        elif Transcript.is_type(event.type):
            try:
                await self.answer(Transcript.from_event(event).text)
            except sprat.SpratError as error:
                await self.write_event(NotHandled(str(error)).event())
        return True

    async def answer(self, sentence: str) -> None:
        """Stream the answer; the whole text follows for clients that take no stream."""
        messages = [{"role": "user", "content": sentence}]
        async with self.engine.stream_chat(messages, temperature=0, **LIMITS) as stream:
            await self.write_event(HandledStart().event())
            async for chunk in stream:
                if text := chunk["choices"][0]["delta"].get("content"):
                    await self.write_event(HandledChunk(text).event())
            completion = await stream.completion()
        await self.write_event(Handled(completion["choices"][0]["message"]["content"]).event())
        await self.write_event(HandledStop().event())


def about(model: str) -> Info:
    """Description of the service for Home Assistant."""
    shared: dict[str, Any] = {"attribution": Attribution("sprat", ""), "installed": True, "version": sprat.__version__}
    handle_model = HandleModel(name=model, description=model, languages=["en"], **shared)
    program = HandleProgram(
        name="sprat", description="A small model", models=[handle_model], supports_handled_streaming=True, **shared
    )
    return Info(handle=[program])


async def main(model: str, address: str) -> None:
    """Serve until the process is ended."""
    async with await sprat.AsyncEngine.load(model) as engine:
        server = AsyncServer.from_uri(address)
        await server.start(partial(Handler, engine))
        print(f"answers at {address}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
