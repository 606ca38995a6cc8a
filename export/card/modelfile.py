"""The Modelfile of a bundle: what ``ollama create NAME -f Modelfile`` reads beside the GGUF.

The prompt format is written in Go's template language, and only where it gives the prompts of the chat template; the
parameters are the ones that the model's author recommends.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace

from sprat.export.card.turn_format import Turn, TurnFormat
from sprat.runtime.generate.sampling_defaults import SamplingDefaults

__all__ = ["go_template", "modelfile"]

_PARAMETERS = ("temperature", "top_k", "top_p", "min_p", "repeat_penalty")  # Ollama's names are ours
_NO_TEMPLATE = """\
# There is no TEMPLATE here, since the chat template writes more than fixed text around each message (a date, numbers,
# merged messages). llama.cpp's server and sprat render the template that the GGUF contains.
"""
_NO_SYSTEM = "# The chat template has no system message of its own: one is sent as it is, before the first question."


def modelfile(
    file_name: str,
    turns: TurnFormat | None,
    *,
    bos: str | None,
    stop: Sequence[str],
    sampling: SamplingDefaults,
    context: int,
) -> str:
    """The text of the Modelfile.

    Args:
        file_name: the GGUF's, in the same folder.
        turns: the prompt format; None if the chat template has no fixed one.
        bos: the token that the runtime puts before every prompt, as text.
        stop: texts of the end-of-sequence tokens.
        sampling: the recommended sampling parameters.
        context: tokens to reserve the KV cache for.
    """
    lines = [f"FROM ./{file_name}", f"PARAMETER num_ctx {context}"]
    lines += [f"PARAMETER {name} {_number(name, sampling[name])}" for name in _PARAMETERS if name in sampling]
    lines += [f"PARAMETER stop {_value(text)}" for text in stop]
    if turns is None:
        return "\n".join(lines) + "\n" + _NO_TEMPLATE
    if turns.system is None:
        lines.append(_NO_SYSTEM)
    if turns.default_system is not None:
        lines.append(f"SYSTEM {_quoted(turns.default_system)}")
    return "\n".join([*lines, f"TEMPLATE {_quoted(go_template(turns, bos=bos))}"]) + "\n"


def go_template(turns: TurnFormat, *, bos: str | None = None) -> str:
    r"""The format as a Go template over ``.Messages``, as Ollama fills it in.

    An answer that is last is continued: its end is left out, as Ollama expects. All text is in literals, so that
    the trimming of ``{{-`` and ``-}}`` touches the line breaks of the template alone.

    Args:
        turns: the format.
        bos: left out at the start, since the runtime writes it.
    """
    return "\n".join(_template_lines(_without_bos(turns, bos)))


def _template_lines(turns: TurnFormat) -> Iterator[str]:
    yield f"{_literal(turns.start)}{{{{- range $i, $_ := .Messages }}}}"
    yield "{{- $last := eq (len (slice $.Messages $i)) 1 }}"
    yield f'{{{{- if eq .Role "system" }}}}{_turn(turns.system or Turn("", ""))}'
    yield f'{{{{- else if eq .Role "user" }}}}{_turn(turns.user)}'
    end = "{{ if not $last }}" + _literal(turns.assistant.after) + "{{ end }}"
    yield f'{{{{- else if eq .Role "assistant" }}}}{_literal(turns.assistant.before)}{{{{ .Content }}}}{end}'
    yield "{{- end }}"
    yield f'{{{{- if and $last (ne .Role "assistant") }}}}{_literal(turns.prompt)}{{{{ end }}}}'
    yield "{{- end }}"


def _without_bos(turns: TurnFormat, bos: str | None) -> TurnFormat:
    if not bos:
        return turns
    if turns.start.startswith(bos):
        return replace(turns, start=turns.start[len(bos) :])
    if turns.system and not turns.start and turns.system.before.startswith(bos):
        return replace(turns, system=Turn(turns.system.before[len(bos) :], turns.system.after))
    return turns


def _turn(turn: Turn) -> str:
    return _literal(turn.before) + "{{ .Content }}" + _literal(turn.after)


def _literal(text: str) -> str:
    """``text`` as a Go string in an action: JSON's escapes are Go's, apart from the slash, which JSON leaves alone.

    Ollama drops what is not printable from a Modelfile, such as an ideographic space, so that is escaped, too.
    """
    return "{{ " + "".join(map(_escaped, json.dumps(text, ensure_ascii=False))) + " }}" if text else ""


def _escaped(character: str) -> str:
    code = ord(character)
    return character if character.isprintable() else f"\\U{code:08x}" if code > 0xFFFF else f"\\u{code:04x}"


def _number(name: str, value: float) -> str:
    return str(int(value)) if name == "top_k" else f"{value:g}"  # an integer has no exponent


def _value(text: str) -> str:
    """``text`` as a Modelfile's value, which has no escapes: what is between the quotes is taken as it is."""
    return _quoted(text) if '"' in text or "\n" in text else f'"{text}"'


def _quoted(text: str) -> str:
    return f'"""{text}"""'
