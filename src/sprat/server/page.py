"""``GET /``: the chat page, one file that loads nothing else."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

__all__ = ["page"]

_SCRIPT = re.compile("<script>(.*)</script>", re.DOTALL)


async def page(_request: Request) -> Response:
    """The page; the browser runs its script and no other, and lets it talk to this server alone."""
    html = _html()
    found = _SCRIPT.search(html)
    assert found is not None, "the page has a script"
    digest = base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()
    policy = f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; connect-src 'self'"
    headers = {
        "Content-Security-Policy": f"{policy}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    return Response(html, media_type="text/html", headers=headers)


@functools.cache
def _html() -> str:
    return files("sprat.server").joinpath("page.html").read_text(encoding="utf-8")
