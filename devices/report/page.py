"""The HTML page in one file: a headline per model, the figures, and their origin."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources

from sprat.devices.bench.results import Label, gather_notes
from sprat.devices.report.charts.svg import clean, document
from sprat.devices.report.figures.figure import Figure
from sprat.devices.report.palette import css_variables
from sprat.devices.report.runs import Evidence, Misfit, Run, by_model
from sprat.text import format_number, human_bytes

__all__ = ["render_page"]

WIDTHS = {"wide": 720, "narrow": 360}  # pixels; CSS shows the one that fits
_MAX_TILES = 6
_DIGEST_LENGTH = 19  # "sha256:" and twelve digits


@dataclass(frozen=True, slots=True)
class _Tile:
    """The headline of one model: its highest speed with the most reliable label."""

    kind: Label
    model: str
    number: str
    where: str


def render_page(evidence: Evidence, figures: Iterable[Figure], *, files: Sequence[str], version: str) -> str:
    """The report as HTML; strings from results are escaped by the template engine or the SVG writer."""
    from jinja2 import Environment
    from markupsafe import Markup

    charted = [
        {
            "charts": [{"width_name": name, "svg": Markup(chart_svg(figure, name))} for name in WIDTHS if figure.draw],
            "slug": figure.slug,
            "question": figure.question,
            "finding": figure.finding,
            "note": figure.note,
            "table": figure.table,
        }
        for figure in figures
    ]
    template = Environment(autoescape=True, finalize=_cleaned).from_string(_asset("page.html"))
    return template.render(
        title=_title(evidence),
        subtitle=_subtitle(evidence),
        style=Markup(f"{css_variables()}\n{_asset('style.css')}\n{_asset('chart.css')}"),
        tiles=list(_tiles(evidence.runs)),
        figures=charted,
        origins=_origins(evidence.runs),
        files=", ".join(files),
        version=version,
    )


def chart_svg(figure: Figure, width_name: str) -> str:
    """The chart of a figure in one of :data:`WIDTHS`, as SVG."""
    assert figure.draw is not None
    width = WIDTHS[width_name]
    return document(
        figure.draw(width),
        width,
        title=figure.question,
        description=figure.finding,
        name=f"{figure.slug}-{width_name}",
    )


def _cleaned(value: object) -> object:
    """Replace control characters, which HTML does not allow."""
    return clean(value) if type(value) is str else value  # Markup is created in this module, from clean strings


def _title(evidence: Evidence) -> str:
    everything: list[Run | Misfit] = [*evidence.runs, *evidence.misfits]
    models, devices = _names(each.model for each in everything), _names(each.device for each in everything)
    what = models[0] if len(models) == 1 else f"{len(models)} models"
    return f"{what} on {devices[0] if len(devices) == 1 else f'{len(devices)} devices'}"


def _subtitle(evidence: Evidence) -> str:
    """Number of results per label, and of those with reservations."""
    counts = Counter(run.label for run in evidence.runs)
    parts = [f"{counts[label]} {label}" for label in Label if counts[label]]
    noted = sum(bool(run.record.notes) for run in evidence.runs)
    warning = f" {noted} with reservations: see the notes at the end." if noted else ""
    return f"Results: {', '.join(parts)}.{warning}" if parts else "No results: the model does not fit."


def _tiles(runs: Sequence[Run]) -> Iterable[_Tile]:
    for model, group in list(by_model([run for run in runs if run.record.work.n_gen]).items())[:_MAX_TILES]:
        first = min(_rank(run) for run in group)
        best = max((run for run in group if _rank(run) == first), key=lambda run: run.speed)
        where = f"{best.label} {'for' if best.label is Label.PREDICTED else 'on'} {best.row}"
        yield _Tile(best.label, model, format_number(best.speed), where)


def _rank(run: Run) -> tuple[int, int]:
    """Most reliable label first, then smallest depth."""
    return list(Label).index(run.label), run.record.work.depth


def _origins(runs: Sequence[Run]) -> list[dict[str, str]]:
    """One block per label, machine and versions, measured first: models and notes."""
    groups: dict[tuple[tuple[str, str], ...], list[Run]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: list(Label).index(run.label)):
        groups[tuple(_origin(run).items())].append(run)
    return [
        dict(block) | _entry("models", map(_file, group)) | _entry("notes", gather_notes(run.record for run in group))
        for block, group in groups.items()
    ]


def _origin(run: Run) -> dict[str, str]:
    record, machine = run.record, run.record.machine
    block = {"label": str(run.label)} | _entry("date", [record.started[:10]])
    if machine:
        cores = "1 core" if machine.n_cores == 1 else f"{machine.n_cores} cores"
        block["machine"] = f"{machine.processor}, {cores}, {human_bytes(machine.memory_bytes)}"
        block["system"] = f"{machine.system}, {machine.architecture}"
    if record.emulation:
        block |= _entry("not emulated", record.emulation.not_emulated)
    return block | _entry("versions", [", ".join(f"{name} {version}" for name, version in record.versions.items())])


def _entry(name: str, values: Iterable[str]) -> dict[str, str]:
    """An entry with the distinct ``values``, one per line; empty if there are none."""
    kept = [value for value in _names(values) if value]
    return {name: "\n".join(kept)} if kept else {}


def _file(run: Run) -> str:
    model = run.record.model
    weights = " with random weights" if model.random_weights and "random weights" not in run.model else ""
    return f"{run.model}{weights}" + (f" ({model.digest[:_DIGEST_LENGTH]}…)" if model.digest else "")


def _names(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _asset(name: str) -> str:
    return (resources.files("sprat.devices.report") / name).read_text(encoding="utf-8")
