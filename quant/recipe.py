"""The block format of every tensor of a model, by its canonical (GGUF) name and shape.

A recipe is a default format, built-in exceptions (or the rules of a mix, see :mod:`sprat.quant.mixes`), and the user's
rules. For one tensor:

1. Tensors with one axis, norms, routers and biases: F32, regardless of rules. llama.cpp does not quantize them either,
   and they are small.
2. The last of the user's rules whose pattern matches the name.
3. The first built-in exception whose pattern matches the name, or the mix's rule.
4. The default format.

If the rows do not divide into blocks of the format, its fallback is used, and :class:`Choice` records both.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from sprat.errors import FormatError, unknown_name
from sprat.quant.formats import BlockFormat, format_names, get_format
from sprat.quant.mixes import MIXES, Mix, ModelShape

__all__ = [
    "KEEP",
    "Choice",
    "KeptFormats",
    "MixedFormats",
    "Recipe",
    "Rule",
    "is_kept_f32",
    "recipe_names",
]

KEEP = "keep"
"""Name of the recipe that leaves the tensors of a GGUF as they are."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The format of one tensor; ``wanted`` differs from ``format`` if a fallback was needed."""

    format: BlockFormat
    wanted: BlockFormat

    @property
    def fell_back(self) -> bool:
        """Whether the rows do not divide into blocks of the wanted format."""
        return self.format is not self.wanted


@dataclass(frozen=True, slots=True)
class Rule:
    r"""``PATTERN=FORMAT``: a regular expression searched in the canonical name, as llama-quantize's ``--tensor-type``.

    Example:
        >>> Rule.parse(r"blk\.[0-3]\.ffn_down=q8_0").matches("blk.2.ffn_down_exps.weight")
        True
    """

    pattern: str
    format: BlockFormat

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Parse one rule; the format follows the last ``=``.

        Raises:
            FormatError: no ``=``, no pattern, an invalid regular expression, or an unknown format.
        """
        pattern, equals, name = text.rpartition("=")
        if not (equals and pattern and name):
            raise FormatError(f"tensor rule {text!r}: expected PATTERN=FORMAT, for example 'ffn_down_exps=q5_0'")
        try:
            re.compile(pattern)
        except re.error as error:
            raise FormatError(f"tensor rule {text!r}: {pattern!r} is not a regular expression ({error})") from error
        return cls(pattern, get_format(name))

    def matches(self, name: str) -> bool:
        """Whether the pattern matches anywhere in the canonical name."""
        return re.search(self.pattern, name) is not None

    def __str__(self) -> str:
        return f"{self.pattern}={self.format.name.lower()}"


@dataclass(frozen=True, slots=True)
class _Base:
    """A default format, the output head's, and exceptions by name."""

    default: str
    head: str
    exceptions: tuple[tuple[str, str], ...] = ()


_KEPT_F32 = re.compile(r"_norm\.|ffn_gate_inp\.|exp_probs_b\.|\.bias$")
_RECIPES = {
    "int8": _Base("Q8_0", head="Q8_0"),
    # Every token uses the latent projections and the head, an error in the latents stays in the cache, and Q8_0 adds
    # few bytes there.
    "int4": _Base("Q4_0", head="Q8_0", exceptions=((r"attn_(kv_a_mqa|k_b|v_b)\.", "Q8_0"),)),
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """Formats by tensor name; created by :meth:`named`, extended by :meth:`with_rules`."""

    name: str
    default: BlockFormat
    exceptions: tuple[Rule, ...] = ()
    rules: tuple[Rule, ...] = ()

    @classmethod
    def named(cls, name: str, *, tied_embeddings: bool = False, model: ModelShape | None = None) -> Recipe:
        """A built-in recipe (``int8``, ``int4``), a mix of llama-quantize or a single block format, case-insensitive.

        With a single format all matrices use it, except that the head uses Q6_K if that has more bits.

        Args:
            name: of :func:`recipe_names`.
            tied_embeddings: the token embedding is the head and gets the head's format.
            model: what a mix asks of the model; without it a name is that of a single format.

        Raises:
            FormatError: unknown name; the message suggests the nearest one.
        """
        key = str(name).lower()
        if key in MIXES and model is not None:
            mix, tied_head = MIXES[key], "token_embd.weight" if tied_embeddings else "output.weight"
            return MixedFormats(mix.name, get_format(mix.default), mix=mix, model=model, head_tensor=tied_head)
        base = _RECIPES.get(key) or _single_format(name)
        head = r"^(output|token_embd)\.weight$" if tied_embeddings else r"^output\.weight$"
        exceptions = (*base.exceptions, (head, base.head))
        rules = tuple(Rule(pattern, get_format(found)) for pattern, found in exceptions)
        return cls(name.lower(), get_format(base.default), rules)

    def with_rules(self, texts: Iterable[str]) -> Recipe:
        """This recipe with additional ``PATTERN=FORMAT`` rules; later rules win.

        Raises:
            FormatError: a text is not a valid rule.
        """
        return replace(self, rules=(*self.rules, *(Rule.parse(text) for text in texts)))

    def choose(self, name: str, shape: tuple[int, ...]) -> Choice:
        """The format of the tensor ``name``; rows run along the last axis of ``shape``."""
        wanted = self._wanted(name, shape)
        found = wanted
        while not found.divides(shape[-1]):
            found = get_format(found.fallback)
        return Choice(found, wanted)

    def file_type(self, main: BlockFormat) -> int:
        """``general.file_type``: llama.cpp's number for this mix of formats, ``main`` being that of most weights."""
        return max(main.file_type, 0)

    def encoding(self, main: BlockFormat) -> str:
        """The formats in file names: ``Q4_0``; ``main`` is that of most weights."""
        return main.name

    def unused_rules(self, names: Iterable[str]) -> list[str]:
        """The user's rules that match no quantizable tensor of ``names``: probably misspelled."""
        names = [name for name in names if not _KEPT_F32.search(name)]
        return [str(rule) for rule in self.rules if not any(map(rule.matches, names))]

    def _wanted(self, name: str, shape: tuple[int, ...]) -> BlockFormat:
        if len(shape) <= 1 or _KEPT_F32.search(name):
            return get_format("F32")
        for rule in (*reversed(self.rules), *self.exceptions):
            if rule.matches(name):
                return rule.format
        return self.default


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedFormats(Recipe):
    """One of llama-quantize's mixes; the user's rules win.

    Attributes:
        mix: its rules.
        model: what they ask of the model.
        head_tensor: name of the output matrix.
    """

    mix: Mix
    model: ModelShape
    head_tensor: str

    def file_type(self, main: BlockFormat) -> int:
        """``general.file_type``."""
        return self.mix.file_type

    def encoding(self, main: BlockFormat) -> str:
        """The mix's name in file names: ``Q4_K_M``."""
        return self.mix.name.upper()

    def _wanted(self, name: str, shape: tuple[int, ...]) -> BlockFormat:
        if len(shape) <= 1 or _KEPT_F32.search(name):
            return get_format("F32")
        found = next((rule.format for rule in reversed(self.rules) if rule.matches(name)), None)
        return found or self.mix.format_of(name, shape, self.model, self.head_tensor)


@dataclass(frozen=True, slots=True)
class KeptFormats(Recipe):
    """Every tensor in a format of its own: the one that it has, or an allocated one; the user's rules still apply.

    Attributes:
        formats: canonical name -> format.
        bits_per_weight: mean over all weights, scales included.
    """

    formats: Mapping[str, BlockFormat] = field(default_factory=dict)
    bits_per_weight: float = 0.0

    @classmethod
    def of(cls, formats: Mapping[str, BlockFormat], n_weights: Mapping[str, int], name: str = KEEP) -> Self:
        """The recipe ``name``; its default is the format of most weights.

        Args:
            formats: canonical name -> format.
            n_weights: canonical name -> number of weights.
            name: of the recipe.
        """
        totals: Counter[str] = Counter()
        for tensor, format in formats.items():
            totals[format.name] += n_weights[tensor]
        most = totals.most_common(1)[0][0]
        default = next(format for format in formats.values() if format.name == most)
        bits = sum(n_weights[tensor] * format.bits_per_weight for tensor, format in formats.items())
        return cls(name, default, formats=formats, bits_per_weight=bits / max(1, sum(n_weights.values())))

    def encoding(self, main: BlockFormat) -> str:
        """The formats in file names: ``INT4``, as asked for, or ``MIX_3_4BPW``: a mix is not its commonest format.

        The name of a kept source is that of its formats.
        """
        if self.name == KEEP:
            return main.name
        return self.name.upper() if self.name in _RECIPES else f"MIX_{self.bits_per_weight:.1f}BPW".replace(".", "_")

    def _wanted(self, name: str, shape: tuple[int, ...]) -> BlockFormat:
        rules = () if len(shape) <= 1 or _KEPT_F32.search(name) else reversed(self.rules)
        return next((rule.format for rule in rules if rule.matches(name)), self.formats[name])


def is_kept_f32(name: str) -> bool:
    """Whether a tensor with this name stays F32 under every recipe: a norm, a router or a bias."""
    return _KEPT_F32.search(name) is not None


_BY_BITS = {"4bit": "int4", "8bit": "int8", "16bit": "f16"}  # what bitsandbytes and MLX call them


def recipe_names() -> list[str]:
    """All names that :meth:`Recipe.named` accepts: built-in recipes, then mixes and formats, sorted."""
    return [*_RECIPES, *sorted({*MIXES, *(name.lower() for name in format_names())})]


def _single_format(name: str) -> _Base:
    if not isinstance(name, str) or name.lower() not in recipe_names():
        raise FormatError(unknown_name("quantization", name, recipe_names(), _BY_BITS))
    if name.lower() in MIXES and name.upper() not in format_names():
        raise FormatError(f"{name}: a mix of llama-quantize depends on the model, which is not known here")
    found, q6_k = get_format(name), "Q6_K"
    return _Base(found.name, head=found.name if found.bits_per_weight > get_format(q6_k).bits_per_weight else q6_k)
