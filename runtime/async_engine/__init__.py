"""The asynchronous engine: many answers at a time over one model, for asyncio."""

from sprat.runtime.async_engine.engine import AsyncEngine
from sprat.runtime.async_engine.session import AsyncSession

__all__ = ["AsyncEngine", "AsyncSession"]
