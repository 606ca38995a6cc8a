"""Loading bundles and GGUFs of a tiny MoE model: memory limits, devices, backends."""

import itertools
import re
from pathlib import Path

import msgspec
import numpy as np
import pytest
from native_kernels import needs_native
from tiny_checkpoint import write_checkpoint

from sprat.devices.profile import load_profile
from sprat.errors import BackendError, BundleError, DeviceError, DoesNotFitError, InputError, ModelFileError
from sprat.export.pipeline import export
from sprat.runtime.engine import Engine


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A bundle of a tiny DeepSeek-V2-Lite in Q8_0 with V2-Lite's context length."""
    folder = tmp_path_factory.mktemp("load")
    source = write_checkpoint(folder / "tiny-Chat", max_position_embeddings=163_840)
    return export(source, folder / "out", quant="int8").bundle


def test_a_bundle_and_its_artifact_give_the_same_answer(bundle):
    with Engine.load(bundle.path) as from_bundle, Engine.load(bundle.artifact()) as from_file:
        answers = [engine.generate("The dog", max_tokens=8, seed=1).text() for engine in (from_bundle, from_file)]
        reply = from_bundle.chat([{"role": "user", "content": "The dog"}], max_tokens=4, seed=1)
    assert answers[0] == answers[1] != ""
    assert reply["usage"]["completion_tokens"] == 4


def test_the_log_probability_of_a_piece_is_that_of_the_logits(bundle):
    with Engine.load(bundle.path) as engine:
        prompt = engine.encode("The dog")
        piece = next(engine.generate(prompt, seed=3))
        logits = engine.backend.new_stream(20).forward(prompt).astype(np.float64)
    log_softmax = logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())
    assert piece.logprob == pytest.approx(log_softmax[piece.token_id])


def test_a_session_answers_like_a_new_stream(bundle):
    # In f16: with random weights the top logits nearly tie, and int8 rounding differs between different prefill chunks.
    with Engine.load(bundle.path, cache="f16") as engine, engine.session() as session:
        session.generate("The quick brown fox jumps", max_tokens=8, temperature=0).text()
        cached = session.generate("The quick brown dog sleeps", max_tokens=8, temperature=0)
        pieces = [piece.token_id for piece in cached]
        fresh = engine.generate("The quick brown dog sleeps", max_tokens=8, temperature=0)
        assert pieces == [piece.token_id for piece in fresh]
    assert cached.summary.timings.cache_n > 1


def test_the_default_context_is_at_most_4096(bundle):
    with Engine.load(bundle.path) as engine:
        assert (engine.context, engine.backend.max_context) == (4096, 163_840)
    with Engine.load(bundle.path, context=10_000) as engine:
        assert engine.context == 10_000


def test_a_context_longer_than_the_model_s_is_an_error(bundle):
    with pytest.raises(InputError, match="context is 163841, expected 1 to 163840"):
        Engine.load(bundle.path, context=163_841)


def test_a_memory_limit_that_is_too_small_is_an_error_with_sizes(bundle):
    with pytest.raises(DoesNotFitError, match=r"reference backend needs .*weights .*for 4,096 tokens .*the 1\.9 MiB"):
        Engine.load(bundle.path, memory="2MB", backend="reference")


def test_the_error_proposes_a_context_that_fits(bundle):
    with pytest.raises(DoesNotFitError, match="use a context of at most") as refused:
        Engine.load(bundle.path, memory="300MB", backend="reference", context=163_840)
    context = int(str(refused.value).split("at most ")[1].split()[0].replace(",", ""))
    Engine.load(bundle.path, memory="300MB", backend="reference", context=context).close()
    with pytest.raises(DoesNotFitError):
        Engine.load(bundle.path, memory="300MB", backend="reference", context=context + 512)


@pytest.mark.parametrize("memory", ["", "lots", "-1GB", 0, "3 parsecs"])
def test_memory_that_is_not_an_amount_is_an_error(bundle, memory):
    with pytest.raises(InputError, match="memory: found"):
        Engine.load(bundle.path, memory=memory)


def test_a_device_s_memory_is_the_limit(bundle):
    with Engine.load(bundle.path, device="rpi5-8gb", backend="reference") as engine:
        assert engine.backend_choice.text() == "reference"


def test_a_device_s_memory_is_enforced(bundle, monkeypatch):
    zero = load_profile("rpi-zero-2w")
    system = msgspec.structs.replace(zero.memory.system_bytes, value=zero.memory.total_bytes.value - 2e6)
    small = msgspec.structs.replace(zero, memory=msgspec.structs.replace(zero.memory, system_bytes=system))
    monkeypatch.setattr("sprat.runtime.loading.limits.find_profile", lambda _name: small)
    with pytest.raises(DoesNotFitError, match=r"on rpi-zero-2w needs .* more than the 1\.9 MiB that it may use"):
        Engine.load(bundle.path, device="rpi-zero-2w")
    with Engine.load(bundle.path, device="rpi-zero-2w", memory="3GB") as engine:
        assert engine.context == 4096


def test_the_error_for_an_unknown_name_proposes_the_nearest(bundle):
    with pytest.raises(DeviceError, match="did you mean 'rpi5-8gb'"):
        Engine.load(bundle.path, device="rpi5-8g")
    with pytest.raises(BackendError, match="did you mean 'reference'"):
        Engine.load(bundle.path, backend="refrence")


def test_a_path_that_is_not_a_model_is_an_error(tmp_path):
    with pytest.raises(BundleError, match=r"sprat export"):
        Engine.load(tmp_path)
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + bytes(33))
    with pytest.raises(ModelFileError):
        Engine.load(tmp_path / "x.gguf")
    with pytest.raises(ModelFileError, match="cannot be opened"):
        Engine.load(tmp_path / "none.gguf")


def test_the_error_for_a_missing_backend_says_how_to_install_it(bundle, monkeypatch):
    monkeypatch.setattr("sprat.runtime.backends.llamacpp.importlib.util.find_spec", lambda _name: None)
    with pytest.raises(BackendError, match=r"llama-cpp-python is not installed.*CMAKE_ARGS='.*' pip install 'sprat\["):
        Engine.load(bundle.path, backend="llamacpp")


def logits_of(path, **options):
    """Logits after a prompt, from a newly loaded engine."""
    with Engine.load(path, **options) as engine:
        return engine.backend.new_stream(40).forward(engine.encode("The quick brown fox jumps over the lazy dog"))


def test_every_run_gives_the_same_bits(bundle):
    once, again = (logits_of(bundle.path, deterministic=True) for _ in range(2))
    np.testing.assert_array_equal(once, again)


def test_a_backend_that_is_not_deterministic_is_an_error_with_deterministic(bundle):
    with pytest.raises(BackendError, match="llamacpp backend does not guarantee the same bits"):
        Engine.load(bundle.path, backend="llamacpp", deterministic=True)


@needs_native
def test_an_exact_engine_gives_the_logits_of_the_reference(bundle):
    exact, reference = logits_of(bundle.path, exact=True), logits_of(bundle.path, backend="reference")
    np.testing.assert_allclose(exact, reference, atol=5e-4 * np.abs(reference).max())  # measured: 1.1e-4


def test_a_backend_that_quantizes_activations_is_an_error_with_exact(bundle):
    with pytest.raises(BackendError, match="llamacpp backend may quantize activations"):
        Engine.load(bundle.path, backend="llamacpp", exact=True)


@needs_native
def test_an_int8_cache_changes_the_logits_little(bundle):
    f16, int8 = (logits_of(bundle.path, backend="native", cache=cache) for cache in ("f16", "int8"))
    assert 0 < np.abs(f16 - int8).max() < 0.05 * np.abs(f16).max()


def has_huge_page_advice(path):
    """Whether this process maps the file with MADV_HUGEPAGE (``hg`` in smaps, proc(5))."""
    maps = Path("/proc/self/smaps").read_text().split("\nVmFlags:")
    return any(f"{path}\n" in mapping and re.search(r"\bhg\b", flags) for mapping, flags in itertools.pairwise(maps))


@needs_native
@pytest.mark.skipif(not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="a kernel without huge pages")
@pytest.mark.parametrize("free_bytes", [1 << 40, 0])
def test_huge_pages_are_requested_if_the_file_fits_into_memory(bundle, monkeypatch, free_bytes):
    monkeypatch.setattr("sprat.runtime.backends.native.available_bytes", lambda: free_bytes)
    with Engine.load(bundle.path, backend="native"):
        assert has_huge_page_advice(bundle.artifact("gguf")) == bool(free_bytes)
