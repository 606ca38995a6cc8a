"""The options that several commands share: how to read a config, to load a model, and to sample from it."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from sprat.app.load import load as load_model
from sprat.cli.output.terminal import progress_bar
from sprat.errors import InputError
from sprat.files import read_text
from sprat.runtime.engine import Engine
from sprat.runtime.generate.sampling import SamplingParams

__all__ = [
    "answer_rules",
    "calibration_option",
    "context_options",
    "format_options",
    "ignore_config_field_option",
    "load_checked",
    "load_options",
    "sampling_options",
    "template_options",
    "tensor_option",
]

Command = TypeVar("Command", bound=Callable[..., Any])


ignore_config_field_option = click.option(
    "--ignore-config-field",
    "ignore_config_fields",
    multiple=True,
    metavar="NAME",
    help="A field of config.json that sprat does not know and you know to be harmless; may be repeated.",
)

tensor_option = click.option(
    "--tensor",
    "tensor_rules",
    multiple=True,
    metavar="PATTERN=FORMAT",
    help="Block format of single tensors; may be repeated.",
)


def calibration_option(purpose: str) -> Callable[[Command], Command]:
    """``--calibration``, whose text a command needs to ``purpose``."""
    return click.option(
        "--calibration",
        type=click.Path(exists=True, dir_okay=False),
        multiple=True,
        metavar="FILE",
        help=f"Text to {purpose} with; the packaged text by default; may be repeated.",
    )


def _default(name: str) -> str:
    """Help text for the default; the model's own value is what its author recommends."""
    return f"[default: the model's, shown by `sprat inspect`; otherwise {getattr(SamplingParams(), name):g}]"


def _pairs(_context: click.Context, _option: click.Parameter, values: tuple[str, ...]) -> dict[str, str] | None:
    """``NAME=VALUE`` of the command line as a dict; ``None`` without one."""
    for value in values:
        if "=" not in value:
            raise click.BadParameter(f"found {value!r}, expected NAME=VALUE")
    return dict(value.split("=", 1) for value in values) or None


_CONTEXT = (
    click.option(
        "--cache",
        type=click.Choice(["f16", "int8", "int4"]),
        help="Storage of the KV cache; int4 is llama.cpp's. [default: the device's plan, or the backend's]",
    ),
    click.option(
        "--flash-attention/--no-flash-attention",
        default=None,
        help="Flash attention of llama.cpp. [default: where the GPU supports it]",
    ),
)
_LOAD = (
    click.option("--device", help="Load as planned for this profile: memory, threads, context (see: sprat devices)."),
    click.option("--memory", help="Hard memory budget, for example 3GB; checked before anything is loaded."),
    click.option("--force", is_flag=True, help="Load a model that does not fit; every token then reads from storage."),
    click.option("--backend", default="auto", show_default=True, help="auto, or one that `sprat doctor` lists."),
    click.option(
        "-c",
        "--context",
        type=click.IntRange(min=1),
        help="Tokens that prompt and answer may have together. [default: the model's limit, at most 4096]",
    ),
    click.option(
        "-b",
        "--batch",
        type=click.IntRange(min=1),
        help="Prompt tokens of one forward pass: fewer take less memory. [default: 256, or the device's plan]",
    ),
    *_CONTEXT,
    click.option(
        "--gpu", metavar="WHAT", help="off, auto (with the CPU to fall back on), on, or an amount of its memory: 4GB."
    ),
    click.option(
        "--provider",
        metavar="NAME",
        help="Compute an ONNX model with this provider of onnxruntime: webgpu, cuda, coreml, directml, openvino, qnn.",
    ),
    click.option(
        "--provider-option",
        "provider_options",
        multiple=True,
        callback=_pairs,
        metavar="NAME=VALUE",
        help="An option of the provider, in onnxruntime's words; may be repeated.",
    ),
    click.option(
        "--prefix-cache",
        metavar="DIR",
        help="Keep processed prompts in this folder; the next one with the same beginning processes only the rest.",
    ),
    click.option(
        "--check", flag_value="hashes", help="First compare every byte of a bundle with the hashes in its manifest."
    ),
    click.option(
        "--isolate",
        is_flag=True,
        default=None,
        help="Run the model in a process without network and write access: for files that you do not trust.",
    ),
    click.option("--trust", is_flag=True, help="Run an ONNX graph with operators that sprat does not write."),
)


def _json_object(_context: click.Context, _option: click.Parameter, value: str | None) -> dict[str, Any] | None:
    """A JSON object on the command line."""
    try:
        found = None if value is None else json.loads(value)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"found {value!r}, expected a JSON object ({error})") from error
    if found is not None and not isinstance(found, dict):
        raise click.BadParameter(f"found {value!r}, expected a JSON object")
    return found


_TEMPLATE = (
    click.option(
        "--chat-template-kwargs",
        callback=_json_object,
        metavar="JSON",
        help="""Variables of the chat template: '{"enable_thinking": false}'.""",
    ),
)
_SAMPLING = (
    click.option(
        "-n",
        "--max-tokens",
        type=click.IntRange(min=1),
        help="Stop after this many tokens. [default: as many as fit into the context]",
    ),
    click.option(
        "--temp",
        "--temperature",
        "temperature",
        type=float,
        help=f"0 is greedy: always the most likely token. {_default('temperature')}",
    ),
    click.option("--top-k", type=int, help=f"Sample from the k most likely tokens. {_default('top_k')}"),
    click.option(
        "--top-p",
        type=float,
        help=f"Sample from the most likely tokens whose probabilities add up to this. {_default('top_p')}",
    ),
    click.option(
        "--min-p",
        type=float,
        help=f"Drop tokens below this share of the highest probability. {_default('min_p')}",
    ),
    click.option(
        "--repeat-penalty",
        type=float,
        help=f"Above 1 makes recent tokens less likely. {_default('repeat_penalty')}",
    ),
    click.option(
        "--presence-penalty", type=float, help="Subtracted from the logits of tokens among the last 64. [default: 0]"
    ),
    click.option(
        "--frequency-penalty", type=float, help="The same, once for each time that a token appears. [default: 0]"
    ),
    click.option("--typical-p", type=float, help="Locally typical sampling. [default: 1, off]"),
    click.option(
        "--top-n-sigma", type=float, help="Drop tokens so many standard deviations below the best. [default: 0, off]"
    ),
    click.option("--xtc-probability", type=float, help="Probability that XTC drops the top tokens. [default: 0, off]"),
    click.option("--xtc-threshold", type=float, help="XTC: top tokens are above this probability. [default: 0.1]"),
    click.option("--seed", type=int, help="Same seed, same answer."),
    click.option("--min-tokens", type=click.IntRange(min=0), help="Do not end the answer before so many tokens."),
    click.option(
        "--max-thinking-tokens",
        type=click.IntRange(min=0),
        help="Close the reasoning after so many tokens, and answer. [default: no limit]",
    ),
    click.option("--stop", multiple=True, help="Text, or a special token, that ends the answer; may be repeated."),
    click.option("--timeout", type=float, help="Seconds after which the answer is cut off."),
)


_FORMATS = (
    click.option(
        "--json-schema",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="The answer is JSON that matches the schema in this file.",
    ),
    click.option("--json-object", is_flag=True, default=None, help="The answer is a JSON object."),
    click.option("--regex", help="The answer matches this regular expression."),
    click.option(
        "--grammar",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="The answer matches the Lark grammar in this file.",
    ),
    click.option("--choices", metavar="A,B", help="The answer is one of these texts, separated by commas."),
    click.option(
        "--close-json", is_flag=True, default=None, help="Finish the answer within --max-tokens instead of cutting it."
    ),
)


def format_options(command: Command) -> Callable[..., Any]:
    """Add what the answer may be; the command receives those that were given as the dict ``formats``."""
    return _gather(command, "formats", _FORMATS)


def answer_rules(formats: dict[str, Any]) -> dict[str, Any]:
    """The keywords of ``generate`` for the options of :func:`format_options`.

    Raises:
        click.UsageError: two of them say what the answer is.
        InputError: the schema is not JSON.
    """
    rules = {name: formats[name] for name in formats.keys() & {"close_json"}}
    kinds = sorted(formats.keys() - rules.keys())
    if len(kinds) > 1:
        raise click.UsageError(f"--{' and --'.join(kinds)} exclude each other".replace("_", "-"))
    for kind in kinds:
        rules["response_format"] = _response_format(kind, formats[kind])
    return rules


def _response_format(kind: str, value: Any) -> dict[str, Any]:
    if kind == "json_schema":
        try:
            return {"type": kind, "schema": json.loads(read_text(value))}
        except (ValueError, RecursionError) as error:
            raise InputError(f"{value}: found no JSON ({error}), expected a JSON schema") from error
    values = {"grammar": read_text(value) if kind == "grammar" else value, "choices": str(value).split(",")}
    return {"type": kind, kind: values.get(kind, value)}


def load_options(command: Command) -> Callable[..., Any]:
    """Add the options of :func:`sprat.load`; the command receives those that were given as the dict ``load``."""
    return _gather(command, "load", _LOAD)


def context_options(command: Command) -> Command:
    """Add the options of a KV cache and its attention."""
    return functools.reduce(lambda found, option: option(found), reversed(_CONTEXT), command)


def load_checked(model: str, options: dict[str, Any], *, quiet: bool = False) -> Engine:
    """Load a model with the options of :func:`load_options`; a bar shows the check of its hashes."""
    with progress_bar("checking", quiet=quiet or "check" not in options, in_bytes=True) as bar:
        return load_model(model, **options, progress=bar)


def template_options(command: Command) -> Callable[..., Any]:
    """Add the options of a chat template; the command receives those that were given as the dict ``template``."""
    return _gather(command, "template", _TEMPLATE)


def sampling_options(command: Command) -> Callable[..., Any]:
    """Add the options of ``generate``; the command receives those that were given as the dict ``options``."""
    return _gather(command, "options", _SAMPLING)


def _gather(command: Command, into: str, options: tuple[Callable[[Any], Any], ...]) -> Callable[..., Any]:
    names = [parameter.name for parameter in _parameters(options)]

    @functools.wraps(command)
    def gathered(**passed: Any) -> Any:
        values = {name: passed.pop(name) for name in names}
        return command(
            **passed, **{into: {name: value for name, value in values.items() if value is not None and value != ()}}
        )

    for option in reversed(options):
        gathered = option(gathered)
    return gathered


def _parameters(options: tuple[Callable[[Any], Any], ...]) -> list[click.Parameter]:
    """The parameters that the decorators add, read from a throwaway command."""

    def probe() -> None:
        """Command without a body."""

    for option in options:
        option(probe)
    return click.command(probe).params
