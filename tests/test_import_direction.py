"""Imports point one way: between rooms, and inside each room from a later part to an earlier one.

``TYPE_CHECKING`` imports count, and so do imports inside functions.
"""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = ROOT / "src" / "sprat"

LEAVES = ["alignment", "argument_types", "arrays", "errors", "files", "keywords", "locks", "native", "progress", "text"]

ROOMS = ["devices", "quant", "runtime", "export", "app", "server", "cli"]
"""Lowest first; a room imports only rooms before it."""

PARTS = {
    "devices": [
        "parts cpu control_groups",
        "container",
        "machine profile",
        "affinity bench",
        "probe plan",
        "emulate report",
    ],
    "quant": [
        "formats",
        "allocate convert kld_scale mixes quality round",
        "recipe",
    ],
    "runtime": [
        "interrupt weights sandbox",
        "tokenizer arch",
        "files cache",
        "kernels",
        "models",
        "memory",
        "gpu_option",
        "backends",
        "pass_queue",
        "prefix",
        "generate",
        "chat",
        "frontend open_model",
        "isolation overflow",
        "session",
        "loading",
        "engine",
        "async_engine health",
    ],
    "export": [
        "source texts",
        "calibration write",
        "gguf onnx",
        "quality",
        "pruning",
        "verify options",
        "artifacts recipe_choice",
        "manifest",
        "card",
        "prepare",
        "calibrated pruned",
        "estimate pipeline inspection",
    ],
    "app": [
        "model_reference questions",
        "evaluate doctor export frontier inspect load plan report verify",
        "demo_bundle",
        "bench quantize",
        "demo",
    ],
}
"""Parts of each room in levels, lowest first; a part imports parts of earlier levels, and itself."""

EXCEPTIONS = {("sprat.export", "sprat.app.export")}
"""The package sprat.export is callable and forwards to the public function of the same name, which is in app."""


def modules(room):
    folder = SOURCES / room
    return sorted(path for path in folder.resolve().rglob("*.py"))


def dotted(path, room):
    inside = path.relative_to((SOURCES / room).resolve()).with_suffix("")
    parts = [part for part in inside.parts if part != "__init__"]
    return ".".join(["sprat", room, *parts])


@cache
def imported_modules(path):
    """Every module of sprat that ``path`` names in an import."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            submodules = [name for alias in node.names if is_module(name := f"{node.module}.{alias.name}")]
            found += submodules if len(submodules) == len(node.names) else [node.module, *submodules]
    return [name for name in found if name.split(".")[0] == "sprat"]


def is_module(name):
    package, *parts = name.split(".")
    place = SOURCES.joinpath(*parts)
    return package == "sprat" and (place.is_dir() or place.with_suffix(".py").is_file())


def level(room, part):
    for index, names in enumerate(PARTS[room]):
        if part in names.split():
            return index
    raise AssertionError(f"sprat.{room}.{part} has no level in PARTS")


def why_wrong(importer, imported):
    """Why the module ``importer`` must not import ``imported``; empty when it may."""
    room, *inside = importer.split(".")[1:]
    target, *target_inside = imported.split(".")[1:] or [""]
    if target in {"_core", "boundary", *LEAVES} or (importer, imported) in EXCEPTIONS:
        return ""
    if target == room:
        return _why_wrong_inside(room, inside, target_inside)
    below = [*ROOMS[: ROOMS.index(room)], *(["demo"] if room in {"app", "cli"} else [])]
    return "" if target in below else f"{target or 'the front door'} is above {room}"


def _why_wrong_inside(room, inside, target_inside):
    if room not in PARTS or not inside or not target_inside or inside[0] == target_inside[0]:
        return ""
    below = level(room, target_inside[0]) < level(room, inside[0])
    return "" if below else f"{target_inside[0]} is not below {inside[0]}"


@pytest.mark.parametrize("room", ROOMS)
def test_no_arrow_points_back(room):
    wrong = [
        f"{dotted(path, room)} imports {module}: {why}"
        for path in modules(room)
        for module in imported_modules(path)
        if (why := why_wrong(dotted(path, room), module))
    ]
    assert wrong == []


@pytest.mark.parametrize("room", PARTS)
def test_every_part_has_a_level(room):
    parts = {dotted(path, room).split(".")[2] for path in modules(room) if dotted(path, room) != f"sprat.{room}"}
    named = {name for names in PARTS[room] for name in names.split()}
    assert named == parts


@pytest.mark.parametrize("leaf", LEAVES)
def test_a_leaf_imports_nothing_of_sprat_but_errors(leaf):
    allowed = {"sprat.errors"} if leaf != "errors" else set()
    assert set(imported_modules(SOURCES / f"{leaf}.py")) <= allowed


def test_the_boundary_imports_only_leaves():
    assert {module.removeprefix("sprat.") for module in imported_modules(SOURCES / "boundary.py")} <= set(LEAVES)


def circle(graph):
    """One circle in ``graph`` as a list of nodes; empty when there is none."""
    done, trail = set(), []

    def visit(node):
        if node in trail:
            return [*trail[trail.index(node) :], node]
        if node in done:
            return []
        trail.append(node)
        found = next(filter(None, map(visit, graph.get(node, ()))), [])
        trail.pop()
        done.add(node)
        return found

    return next(filter(None, map(visit, graph)), [])


def test_no_circle_of_modules():
    graph = {dotted(path, room): imported_modules(path) for room in ROOMS for path in modules(room)}
    assert circle(graph) == []


def test_a_circle_is_found():
    assert circle({"a": ["b"], "b": ["c"], "c": ["b"]}) == ["b", "c", "b"]
    assert circle({"a": ["b", "c"], "b": ["c"]}) == []


def test_the_rule_itself_refuses_an_arrow_back():
    assert why_wrong("sprat.runtime.engine", "sprat.export.write.writer")
    assert why_wrong("sprat.quant.recipe", "sprat.runtime.arch.spec")
    assert why_wrong("sprat.export.pipeline", "sprat.cli")
    assert why_wrong("sprat.runtime.session", "sprat.runtime.engine")
    assert why_wrong("sprat.runtime.models.model", "sprat.runtime.backends.protocol")
    assert why_wrong("sprat.export.gguf.layout", "sprat.export.onnx.artifact")
    assert not why_wrong("sprat.devices.cpu", "sprat.errors")
    assert not why_wrong("sprat.runtime.engine", "sprat.quant.formats")
    assert not why_wrong("sprat.runtime.engine", "sprat.runtime.session")
    assert not why_wrong("sprat.runtime.files.gguf", "sprat.runtime.files.gguf_header")
