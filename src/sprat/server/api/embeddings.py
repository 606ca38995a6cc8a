"""``POST /v1/embeddings``: vectors of texts."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

from msgspec import Meta
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sprat.arrays import F32Array
from sprat.server.answering import Answering
from sprat.server.api.fields import NoEffect, is_tokens
from sprat.server.errors import ApiError
from sprat.server.exchange import body_of, unless_gone

__all__ = ["EmbeddingRequest", "embeddings"]

_MAX_INPUTS = 2048  # OpenAI's
_Encoding = Literal["float", "base64"]


class EmbeddingRequest(NoEffect, kw_only=True, forbid_unknown_fields=True):
    """The body of a request."""

    input: Any  # text, token ids, or a list of either: msgspec has no unions of arrays
    model: str = ""
    encoding_format: _Encoding | None = None
    dimensions: Annotated[int, Meta(ge=1)] | None = None

    def inputs(self) -> list[str | list[int]]:
        """The texts, one for each vector.

        Raises:
            ApiError: they are none that OpenAI's API has, or there are too many.
        """
        inputs = self.input if isinstance(self.input, list) and not is_tokens(self.input) else [self.input]
        if not all(isinstance(text, str) or is_tokens(text) for text in inputs):
            raise ApiError(400, "input: expected text, token ids, or a list of these", param="input")
        if not 1 <= len(inputs) <= _MAX_INPUTS:
            raise ApiError(400, f"input: {len(inputs)} texts, expected 1 to {_MAX_INPUTS}", param="input")
        return inputs


async def embeddings(request: Request) -> Response:
    """A vector of length 1 for each text."""
    body = await body_of(request, EmbeddingRequest)
    answering, inputs = Answering(request, body.model), body.inputs()
    vectors, n_tokens = await unless_gone(request, answering.embeddings(inputs))
    size = len(vectors[0])
    if body.dimensions not in (None, size):
        raise ApiError(
            400,
            f"dimensions is {body.dimensions}, expected {size}, the size of this model's vectors; leave it out",
            param="dimensions",
        )
    data = [
        {"object": "embedding", "index": index, "embedding": _encoded(vector, body.encoding_format)}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": n_tokens, "total_tokens": n_tokens}
    return JSONResponse({"object": "list", "data": data, "model": answering.model.name, "usage": usage})


def _encoded(vector: F32Array, encoding: _Encoding | None) -> list[float] | str:
    """The numbers, or the base64 of their bytes, little-endian float32, which OpenAI's clients ask for."""
    if encoding == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    numbers: list[float] = vector.tolist()
    return numbers
