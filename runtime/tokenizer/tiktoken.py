"""Reader of ``tiktoken.model``, the vocabulary file of Moonshot's models (Moonlight, Kimi): ``base64 rank`` per line.

The file has the bytes of the tokens only. Moonshot's tokenizer code adds the rest, and every checkpoint has the same:
the pre-tokenizer ``kimi-k2``, and 256 ids after the ranks, named by ``added_tokens_decoder`` in tokenizer_config.json.
The code itself is never run.
"""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path

from sprat.errors import TokenizerError
from sprat.runtime.tokenizer.added_tokens import AddedToken
from sprat.runtime.tokenizer.byte_alphabet import byte_alphabet
from sprat.runtime.tokenizer.vocabulary import TokenizerModel, TokenType, Vocabulary

__all__ = ["TIKTOKEN_NAME", "is_tiktoken", "read_tiktoken", "reserved_tokens"]

TIKTOKEN_NAME = "tiktoken.model"
_PRE_TOKENIZER = "kimi-k2"
_N_RESERVED = 256
_MAX_TOKEN_BYTES = 1024
_MAX_SQUARES = 1 << 28  # sum of squared lengths, the bytes of all splits: 160,000 tokens of 40 bytes
_HAN_FIRST = r"[\p{Han}]+"  # how Moonshot's expression begins


def read_tiktoken(path: Path) -> Vocabulary:
    """The vocabulary of ranks; a token's id is its rank.

    tiktoken merges any two neighbors whose joined bytes are a token, so each token has a merge for every split of it.

    Raises:
        TokenizerError: a line is not a token and a rank, ranks are not consecutive, a byte has no token, or the
            checkpoint's code has another pre-tokenizer than Moonshot's.
    """
    _check_code(path)
    tokens = _ranked(path)
    if (longest := max(map(len, tokens), default=0)) > _MAX_TOKEN_BYTES:
        raise TokenizerError(f"{path}: found a token of {longest} bytes, expected at most {_MAX_TOKEN_BYTES}")
    if sum(len(token) ** 2 for token in tokens) > _MAX_SQUARES:
        raise TokenizerError(f"{path}: found far longer tokens than a vocabulary has; download it again")
    table = {byte: char for char, byte in byte_alphabet().items()}
    texts = ["".join(table[byte] for byte in token) for token in tokens]
    return Vocabulary(
        model=TokenizerModel.BYTE_LEVEL_BPE,
        tokens=texts,
        types=[TokenType.NORMAL] * len(texts),
        pre=_PRE_TOKENIZER,
        merges=_merges(texts),
    )


def reserved_tokens(n_ranks: int, n_rows: int | None, named: list[AddedToken]) -> list[AddedToken]:
    """Moonshot's placeholders for the ids after the ranks that ``named`` leaves without a name."""
    taken = {token.id for token in named}
    end = n_ranks + _N_RESERVED if n_rows is None else min(n_ranks + _N_RESERVED, n_rows)
    free = (index for index in range(n_ranks, end) if index not in taken)
    return [AddedToken(id=index, text=f"<|reserved_token_{index}|>", source=TIKTOKEN_NAME) for index in free]


def _check_code(path: Path) -> None:
    """The pre-tokenizer of a tiktoken file is in the checkpoint's Python code: read it, if it is there."""
    for code in sorted(path.parent.glob("tokenization_*.py")):
        text = code.read_text(encoding="utf-8", errors="replace")
        if "pat_str" in text and _HAN_FIRST not in text:
            raise TokenizerError(
                f"{code}: found another pre-tokenizer than Moonshot's, the one that sprat knows for a tiktoken file; "
                "save the tokenizer in the fast format with AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)"
            )


def _ranked(path: Path) -> list[bytes]:
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        fields = line.split()
        if not fields:
            continue
        try:
            token, rank = base64.b64decode(fields[0], validate=True), int(fields[1])
        except (IndexError, ValueError, binascii.Error) as error:
            raise TokenizerError(
                f"{path}: line {number} is {line[:60]!r}, expected a token in base64 and its rank; download it again"
            ) from error
        if not token or token in ranks:
            raise TokenizerError(f"{path}: line {number} repeats the token {token[:60]!r}; download it again")
        ranks[token] = rank
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise TokenizerError(f"{path}: the ranks are not 0 to {len(ranks) - 1}, each once; download it again")
    if missing := [byte for byte in range(256) if bytes([byte]) not in ranks]:
        raise TokenizerError(f"{path}: {len(missing)} of 256 bytes have no token; download it again")
    return sorted(ranks, key=ranks.__getitem__)


def _merges(tokens: list[str]) -> list[str]:
    """``left right`` for every split of every token into two tokens, ordered by the rank of the token, then of left."""
    ranks = {text: rank for rank, text in enumerate(tokens)}
    merges: list[str] = []
    for token in tokens:
        cuts = range(1, len(token))
        pairs = ((token[:at], token[at:]) for at in cuts if token[:at] in ranks and token[at:] in ranks)
        merges += (f"{left} {right}" for left, right in sorted(pairs, key=lambda pair: ranks[pair[0]]))
    return merges


def is_tiktoken(data: bytes) -> bool:
    """Whether a file begins like one of tiktoken: base64, a space, a rank."""
    return re.match(rb"[A-Za-z0-9+/]+={0,2} \d+\r?\n", data) is not None
