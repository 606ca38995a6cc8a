"""The layer pass computes what the model computes, and shows every matrix its inputs."""

import numpy as np
import pytest
from tiny_checkpoint import CONFIGS, write_checkpoint

from sprat.export.quality.measuring.layer_pass import LayerPass, Replaced
from sprat.export.quality.measuring.score import score
from sprat.export.quality.measuring.statistics import MatrixMoments, MomentsRecorder
from sprat.export.quality.measuring.taps import RecordingKernels
from sprat.export.source.checkpoint import Checkpoint
from sprat.quant.formats import get_format
from sprat.quant.quality import QualityMeter
from sprat.quant.recipe import is_kept_f32
from sprat.runtime.kernels import ReferenceKernels
from sprat.runtime.models import Model
from sprat.runtime.weights import Weight

SEQUENCES = [np.random.default_rng(seed).integers(4, 400, n).astype(np.int32) for seed, n in enumerate((20, 7, 33))]


@pytest.fixture(scope="module", params=CONFIGS)
def source(request, tmp_path_factory):
    return Checkpoint.open(
        write_checkpoint(tmp_path_factory.mktemp("c") / "source", request.param, num_hidden_layers=3)
    )


def run(source, kernels):
    layers = LayerPass(source.spec, source, SEQUENCES)
    x = layers.embed(ReferenceKernels(0))
    for layer in range(source.spec.n_layers):
        layers.run(layers.block(layer), x, kernels)
    return layers, x


def whole_model(source):
    """Logits of every sequence by the model itself."""
    model = Model(source.spec, source, ReferenceKernels())
    return np.concatenate([model.forward(s, model.new_cache(len(s)), all_logits=True) for s in SEQUENCES])


def test_layer_by_layer_is_the_whole_model(source):
    layers, x = run(source, ReferenceKernels())
    assert np.allclose(ReferenceKernels().logits(x, layers.head()), whole_model(source), atol=2e-4)


def test_recording_changes_nothing_and_sees_every_matrix(source):
    recorder = MomentsRecorder()
    _, x = run(source, RecordingKernels(ReferenceKernels(), recorder))
    assert np.allclose(x, run(source, ReferenceKernels())[1], atol=2e-4)
    matrices = {name for name, t in source.tensors.items() if len(t.shape) > 1 and name.startswith("blk.")}
    assert {name for name in matrices if not is_kept_f32(name)} <= set(recorder.moments)


def test_moments_are_those_of_the_inputs(source):
    seen = {}

    def observe(weight, x, weights=None, index=None):
        part = seen.setdefault((weight.name, index), [])
        part.append(x if weights is None else x * np.sqrt(weights)[:, None])

    recorder = MomentsRecorder()
    run(source, RecordingKernels(ReferenceKernels(), recorder))
    run(source, RecordingKernels(ReferenceKernels(), observe))
    for (name, index), parts in seen.items():
        x = np.concatenate(parts)
        found = recorder.moments[name]
        own = found._parts[index or 0]
        assert own.n_tokens == len(x)
        total = own.mean() * own.weight
        assert np.allclose(total, x.T @ x, rtol=1e-3, atol=1e-3 * np.abs(total).max())


def test_experts_that_saw_nothing_have_their_layers_moments():
    moments = MatrixMoments(3, 4)
    x = np.random.default_rng(0).standard_normal((600, 4)).astype(np.float32)
    moments.add(x, None, 1)
    common = moments.common()
    assert np.array_equal(moments.of_part(0, common), common)
    assert np.allclose(moments.of_part(1, common), common, atol=1e-6)
    assert moments.n_tokens == [0, 600, 0]
    assert np.allclose(moments.mean_squares()[2], np.square(x).mean(axis=0), atol=1e-5)


def rounded(source, format_name):
    format = get_format(format_name)
    weights = {}
    for name, tensor in source.tensors.items():
        if len(tensor.shape) > 1 and not is_kept_f32(name):
            weights[name] = Weight(name, format, tensor.shape, format.quantize(tensor.weight().dequantize()))
    return Replaced(source, weights)


def test_scores_are_those_of_verify(source):
    layers = LayerPass(source.spec, source, SEQUENCES)
    candidate = rounded(source, "Q4_0")
    found = score(layers, {"Q4_0": candidate, "same": source})
    model = Model(source.spec, candidate, ReferenceKernels())
    logits = np.concatenate([model.forward(s, model.new_cache(len(s)), all_logits=True) for s in SEQUENCES])
    meter = QualityMeter()
    meter.add(whole_model(source), logits, np.zeros(len(logits), np.int64))
    assert found["Q4_0"].mean == pytest.approx(meter.result().mean_kld, rel=1e-3)
    assert abs(found["same"].mean) < 1e-6
    assert found["same"].same_top.all()
