"""Every ONNX export of every architecture in an old, a middle and the newest onnxruntime (docs/onnx.md)."""

import functools

import numpy as np
import pytest
from safetensors.numpy import load_file

pytest.importorskip("onnx_ir")
pytest.importorskip("onnxruntime")

from golden_models import GOLDEN, NAMES
from onnx_models import artifact, write
from ort_matrix import VERSIONS, installed, run_in

from sprat.export.onnx.ort_version import FAST_QMOE, LOWEST, OrtVersion
from sprat.export.source.checkpoint import Checkpoint

pytestmark = pytest.mark.slow

CHUNK = 17
TOLERANCE = 1e-4  # of the largest logit
INT8_ACTIVATIONS = 0.1  # median over tokens: rounding differs from version to version, and may route a token otherwise
EXACT = {
    "f32": ("f32", {}),
    "int4": ("int4", {"accuracy_level": 0}),
    "int8": ("int8", {"accuracy_level": 0}),
    "asymmetric": ("q4_1", {"accuracy_level": 0}),
    "portable f32": ("f32", {"portable": True}),
    "portable int4": ("int4", {"portable": True}),
    "portable int8": ("int8", {"portable": True}),
    "portable asymmetric": ("q4_1", {"portable": True}),
}
ROUNDED = {"int4 fast": ("int4", {}), "int8 fast": ("int8", {})}
NEW = {"int4 QMoE": ("int4", {"ort": FAST_QMOE}), "int8 QMoE": ("int8", {"ort": FAST_QMOE})}
FORMS = {**EXACT, **ROUNDED, **NEW}


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """(model, form) -> folder."""
    root, folders = tmp_path_factory.mktemp("exports"), {}
    for name in NAMES:
        checkpoint = Checkpoint.open(GOLDEN / name)
        for form, (quant, options) in FORMS.items():
            if form not in NEW or checkpoint.spec.moe:
                folder = root / f"{name} {form}"
                folders[name, form] = write(folder, checkpoint, quant, **options)
    return folders


def logits_in(version, exports, scratch):
    """(model, form) -> logits in one version, or its error."""
    wanted = {key: load_file(GOLDEN / key[0] / "expected.safetensors")["tokens"].tolist() for key in exports}
    requests = [
        {
            "model": str(exports[key] / "model.onnx"),
            "tokens": tokens,
            "chunk": CHUNK,
            "logits": str(scratch / f"{i}.npy"),
        }
        for i, (key, tokens) in enumerate(wanted.items())
    ]
    answers = run_in(version, requests)
    return {
        key: answer.get("error") or np.load(request["logits"])
        for key, request, answer in zip(wanted, requests, answers, strict=True)
    }


@pytest.fixture(scope="module")
def newest(exports, tmp_path_factory):
    if not installed(VERSIONS[-1]):
        pytest.skip("make .venv/.onnxruntimes installs the versions")
    return logits_in(VERSIONS[-1], exports, tmp_path_factory.mktemp("newest"))


@pytest.fixture(scope="module", params=VERSIONS)
def found(request, newest, exports, tmp_path_factory):
    """A version, and its logits."""
    if request.param == VERSIONS[-1]:
        return request.param, newest
    if not installed(request.param):
        pytest.skip("make .venv/.onnxruntimes installs the versions")
    return request.param, logits_in(request.param, exports, tmp_path_factory.mktemp("old"))


@functools.cache
def required(name, form):
    """The lowest version in which the export says that it loads."""
    quant, options = FORMS[form]
    requires = artifact(Checkpoint.open(GOLDEN / name), quant, **options).requires
    return OrtVersion.parse(requires.split(",")[0].removeprefix("onnxruntime >= "))


def test_every_graph_runs_where_it_says(found):
    version, logits = found
    for (name, form), result in logits.items():
        if OrtVersion.parse(version) >= required(name, form):
            assert not isinstance(result, str), (version, name, form, result)


def test_float_logits_are_the_golden_ones(found):
    version, logits = found
    for (name, form), result in logits.items():
        if form in {"f32", "portable f32"}:
            expected = load_file(GOLDEN / name / "expected.safetensors")["logits"]
            assert np.abs(result - expected).max() <= TOLERANCE * np.abs(expected).max(), (version, name, form)


def test_quantized_logits_are_those_of_the_newest_version(found, newest):
    version, logits = found
    for (name, form), result in logits.items():
        expected = newest[name, form]
        if OrtVersion.parse(version) < required(name, form):
            continue
        if form in EXACT:
            assert np.abs(result - expected).max() <= TOLERANCE * np.abs(expected).max(), (version, name, form)
        elif form in ROUNDED:
            errors = np.abs(result - expected).max(axis=1) / np.abs(expected).max()
            assert np.median(errors) <= INT8_ACTIVATIONS, (version, name, form)


def test_the_first_version_is_the_lowest_that_graphs_ask_for():
    assert OrtVersion.parse(VERSIONS[0]) == LOWEST
    assert list(VERSIONS) == sorted(VERSIONS, key=lambda text: [int(part) for part in text.split(".")])
