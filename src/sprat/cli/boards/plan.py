"""``sprat plan``."""

from __future__ import annotations

import dataclasses
import math
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from sprat.app.model_reference import DEMO
from sprat.app.plan import PlannedModel, assumed_dimensions, plan, plan_mix, read_model
from sprat.cli.model_options import ignore_config_field_option
from sprat.cli.output.gpu_table import best_speed, print_placements
from sprat.cli.output.terminal import print_json, print_table, warn_left_out
from sprat.devices.plan.footprint import AS_IT_IS
from sprat.devices.plan.plan import DEFAULT_PROMPT, Plan, Verdict
from sprat.devices.plan.text import headline, notes, smaller_choice
from sprat.runtime.arch.tensors import expected_tensors
from sprat.runtime.gpu_option import GPUOption
from sprat.text import format_number, human_bytes

__all__ = ["command"]

_EXAMPLES = """\b
Examples:
  sprat plan deepseek-v2-lite --all
  sprat plan r1-distill-qwen-1.5b --device home-4c-8gb-4gpu
  sprat plan model.gguf --device rpi5-8gb --context 16384 --memory 6GB
  sprat plan qwen3-30b-a3b --device home-8c-16gb-8gpu --gpu 6GB
"""


@click.command(epilog=_EXAMPLES)
@click.argument("model")
@click.option("--device", "devices", multiple=True, help="A profile (see: sprat devices); may be repeated.")
@click.option("--all", "every", is_flag=True, help="All devices; the default without --device.")
@click.option(
    "-c", "--context", type=click.IntRange(min=1), help="Tokens to plan the KV cache for; by default at most 4096."
)
@click.option("--quant", help="Only this quantization: int8, int4, a mix such as q4_k_m or a block format.")
@click.option("--memory", help="Memory budget of the model, for example 3GB; by default all but what the system keeps.")
@click.option("-p", "--prompt", "prompt_tokens", type=click.IntRange(min=1), default=DEFAULT_PROMPT, show_default=True,
              help="Prompt length for which TTFT is predicted.")  # fmt: skip
@click.option(
    "--gpu",
    metavar="WHAT",
    help="Placements on the GPU: auto (none, the fastest and all), on, off, or an amount of its memory.",
)
@ignore_config_field_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per device.")
def command(
    *,
    model: str,
    devices: tuple[str, ...],
    every: bool,
    context: int | None,
    quant: str | None,
    memory: str | None,
    prompt_tokens: int,
    gpu: str | None,
    ignore_config_fields: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show whether MODEL fits devices, its memory map, and its predicted speed; no weight is read.

    MODEL is a bundle, a GGUF file, a checkpoint folder, a config.json, `demo`, or the name of a published model such
    as deepseek-v2-lite or r1-distill-qwen-7b.
    """
    if devices and every:
        raise click.UsageError("--all and --device exclude each other; give one of them")
    wanted_gpu = gpu or "auto"
    option = GPUOption.of(wanted_gpu)
    plans = plan(
        model,
        devices=devices,
        context=context,
        quant=quant,
        memory=memory,
        prompt_tokens=prompt_tokens,
        ignore_config_fields=ignore_config_fields,
        on_broken=warn_left_out,
    )
    known = None if quant else read_model(model, context=context, ignore_config_fields=ignore_config_fields)
    if as_json:
        for found in plans:
            mix = plan_mix(known, found) if known else None
            summary = found.summary(model, card_bytes=option.card_bytes)
            print_json(dataclasses.replace(summary, mix=mix.summary(model) if mix else None))
    elif len(plans) == 1:
        device = devices[0] if devices else plans[0].profile.name
        choice = [*smaller_choice(plans[0], known.footprints), *_about_mix(known, plans[0])] if known else []
        _print_one(model, plans[0], choice, option)
        click.echo(f"next:  {_next(model, plans[0], device, wanted_gpu)}")
    else:
        _print_many(model, plans, None if gpu is None or option.is_off else option)
    if (assumed := assumed_dimensions(model)) and not as_json:
        click.echo(f"note: not all dimensions of {model} are published; assumed: {', '.join(assumed)}")


def _print_one(model: str, plan: Plan, choice: Iterable[str], gpu: GPUOption) -> None:
    """Print a plan; ``choice`` are notes on other quantizations."""
    click.echo(f"{model}: {headline(plan)}")
    total = plan.profile.memory.total_bytes.value
    rows = [
        (part.name, f"{part.size_bytes:,}", human_bytes(part.size_bytes), f"{100 * part.size_bytes / total:.1f} %")
        for part in plan.memory_map()
    ]
    print_table(("memory", "bytes", "size", "of the device"), rows)
    print_table(("storage", "bytes", "size", "of the device"), [_file(plan)])
    if plan.prediction is not None:
        print_table(("predicted", "value", "limited by"), _predicted(plan))
        error = 100 * plan.prediction.relative_error
        click.echo(f"predicted from the profile, ± {error:.0f} %; nothing was measured")
    if not gpu.is_off:
        print_placements(plan, gpu.card_bytes, whole_only=not gpu.falls_back and gpu.card_bytes is None)
    for note in (*notes(plan), *choice):
        click.echo(f"note: {note}")


def _about_mix(model: PlannedModel, plan: Plan) -> Iterator[str]:
    """Proposal of a calibrated export for a device that does not hold the model."""
    mix = plan_mix(model, plan)
    if mix is None:
        return
    size = mix.footprint.weight_bytes
    n_weights = sum(math.prod(shape) for shape in expected_tensors(model.spec).values())
    speeds = ""
    if mix.prediction:
        before = f" in place of {format_number(plan.prediction.decode_tokens_per_s)}" if plan.prediction else ""
        speeds = f" and decodes {format_number(mix.prediction.decode_tokens_per_s)} tokens/s{before} (predicted)"
    yield (
        f"a mix of formats in {human_bytes(size)} ({8 * size / n_weights:.2f} bits per weight) stays wholly in "
        f"memory{speeds}: --quality balanced writes it; its KL divergence is unknown before that measures it"
    )


def _file(plan: Plan) -> tuple[str, ...]:
    """The row of the file: its weights, which a header of some MiB precedes."""
    size, storage = plan.footprint.weight_bytes, plan.storage
    share = f"{100 * size / storage.capacity_bytes.value:.1f} %" if storage and storage.capacity_bytes else "-"
    place = storage.kind if storage else "too large for any"
    return f"weights of the file ({place})", f"{size:,}", human_bytes(size), share


def _predicted(plan: Plan) -> list[tuple[str, str, str]]:
    found = plan.prediction
    assert found is not None, "the caller checked"
    context = f"{plan.footprint.context:,}"
    prefill, decode, decode_at_context = map(
        format_number, (found.prefill_tokens_per_s, found.decode_tokens_per_s, found.decode_tokens_per_s_at_context)
    )
    return [
        (f"TTFT, prompt of {found.prompt_tokens:,} tokens", _seconds(found.ttft_s), found.prefill_limit),
        ("reading the weights once, when loading", _seconds(found.load_s), "storage"),
        ("prefill", f"{prefill} tokens/s", found.prefill_limit),
        ("decode at depth 0", f"{decode} tokens/s", found.decode_limit),
        (f"decode at depth {context}", f"{decode_at_context} tokens/s", found.decode_limit),
    ]


def _print_many(model: str, plans: list[Plan], gpu: GPUOption | None) -> None:
    """``gpu`` adds a column with the fastest placement on each device's GPU."""
    count = sum(plan.runs for plan in plans)
    streamed = sum(plan.verdict is Verdict.STREAMED for plan in plans)
    click.echo(f"{model}: runs on {count} of {len(plans)} devices, on {streamed} of them with experts streamed")
    columns: tuple[str, ...] = (
        "device",
        "quant",
        "verdict",
        "needs",
        "memory",
        "TTFT",
        "decode, t/s",
        "± %",
        "limited by",
    )
    rows = [_row(plan) for plan in plans]
    if gpu is not None:
        columns += ("with the GPU, t/s",)
        rows = [(*row, best_speed(plan, gpu.card_bytes)) for row, plan in zip(rows, plans, strict=True)]
    print_table(columns, rows)
    footprint = plans[0].footprint
    click.echo(
        f"speeds are predicted: TTFT of a prompt of {plans[0].prompt_tokens:,} tokens, decode at depth 0; "
        f"the KV cache is planned for {footprint.context:,} tokens"
    )
    click.echo(f"next:  sprat plan {shlex.quote(model)} --device {plans[0].profile.name}")


def _row(plan: Plan) -> tuple[str, ...]:
    by = {
        Verdict.FITS: "",
        Verdict.STREAMED: f", {100 * plan.held_experts_share:.0f} % in memory",
        Verdict.TOO_LARGE: f" by {human_bytes(plan.missing_bytes)} of {plan.missing_from}",
    }
    found = plan.prediction
    return (
        plan.profile.name,
        plan.footprint.quant,
        f"{plan.verdict}{by[plan.verdict]}",
        human_bytes(plan.footprint.total_bytes),
        human_bytes(plan.usable_bytes),
        _seconds(found.ttft_s) if found else "-",
        format_number(found.decode_tokens_per_s) if found else "-",
        f"{100 * found.relative_error:.0f}" if found else "-",
        found.decode_limit if found else "-",
    )


def _seconds(seconds: float) -> str:
    return (
        f"{1e3 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
    )


def _next(model: str, plan: Plan, device: str, gpu: str) -> str:
    """The command that follows; ``device`` and ``gpu`` as the user named them."""
    option = f"--device {shlex.quote(device)}"
    running = f"{option}{_gpu_option(plan, gpu)}"
    if plan.runs and plan.footprint.quant == AS_IT_IS:
        return f"sprat run {shlex.quote(model)} 'a prompt' {running}"
    if plan.runs:
        source = shlex.quote(model) if model == DEMO or Path(model).exists() else "SOURCE"
        return f"sprat export {source} OUT {option}   then:  sprat run OUT 'a prompt' {running}"
    return f"sprat plan {shlex.quote(model)} --all   then choose a device that it fits"


def _gpu_option(plan: Plan, gpu: str) -> str:
    """`` --gpu VALUE`` with the user's value where the GPU is predicted to help, and nothing for ``off``."""
    found = plan.gpu()
    helps = found is not None and found.best is not None and not found.best.placement.is_off
    return f" --gpu {shlex.quote(gpu)}" if helps and gpu != "off" else ""
