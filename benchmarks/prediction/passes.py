"""Times passes of models, each right after a probe of the machine.

On a shared machine memory bandwidth and compute rate change within seconds, by up to a factor of two. So each pass is
predicted from the probe that ran right before it, and the median error of several such pairs counts.
"""

from __future__ import annotations

import functools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from sprat.app.model_reference import find_source
from sprat.devices.bench.resources import drop_cached
from sprat.devices.bench.results import Emulation
from sprat.devices.emulate.cgroups import Limits, find_tree, plan_groups
from sprat.devices.emulate.emulate import Emulator
from sprat.devices.parts import Basis, Sourced
from sprat.devices.plan.efficiency import Efficiency
from sprat.devices.plan.footprint import Footprint
from sprat.devices.plan.plan import Plan
from sprat.devices.plan.predict import PREFILL_CHUNK, PassTime, Predictor, device_rates
from sprat.devices.probe import measure_again
from sprat.devices.probe.storage import random_rate
from sprat.devices.profile import DeviceProfile
from sprat.export.gguf.random_weights import cached_preset
from sprat.export.pipeline import export
from sprat.runtime.arch.gguf_keys import spec_from_metadata
from sprat.runtime.backends.protocol import TokenStream
from sprat.runtime.backends.registry import LoadRequest, choose, open_backend
from sprat.runtime.files.gguf import GGUFFile
from sprat.runtime.kernels.rates import measure_rates
from sprat.runtime.memory.amount import parse_memory
from sprat.runtime.memory.footprint import file_footprint

__all__ = ["MODELS", "Measured", "Model", "Pair", "measure"]

_DEPTHS = (0, 2048)
_DECODED = 16
_PAIRS = 5
_RATE_SECONDS = 0.12  # per rate of a probe
_READ_BYTES = 16 << 20
_PROBE_REQUEST = b"probe\n"  # from the child, to standard output

Probe = Callable[[], DeviceProfile]
"""Returns a profile of the machine as it is now."""


@dataclass(frozen=True, slots=True)
class Model:
    """A file to measure: the packaged student, or some layers of a preset with random weights."""

    name: str  # "demo", or a preset
    quant: str
    layers: int | None = None
    memory: str | None = None  # a memory limit below the size of all experts

    def __str__(self) -> str:
        layers = f" {self.layers} layers" if self.layers else ""
        return f"{self.name}{layers} {self.quant}{f' in {self.memory}' if self.memory else ''}"


MODELS = (
    Model("demo", "int4"),
    Model("demo", "int8"),
    Model("smollm2-135m", "int4"),
    Model("smollm2-135m", "int8"),
    Model("deepseek-v2-lite", "int4", layers=5),
    Model("deepseek-v2-lite", "int8", layers=4),
    Model("r1-distill-qwen-1.5b", "int4", layers=8),
    Model("r1-distill-qwen-1.5b", "int8", layers=6),
    Model("r1-distill-llama-8b", "int4", layers=3),
    Model("r1-distill-llama-8b", "int8", layers=2),
    Model("deepseek-v2-lite", "int4", layers=5, memory="1300MB"),
)


class Pair(msgspec.Struct, frozen=True):
    """The time of a pass, and the machine as probed right before it."""

    seconds: float
    profile: DeviceProfile


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of pass of one model, timed several times."""

    model: str
    phase: str  # "decode" or "prefill"
    depth: int  # tokens in the cache before the pass
    footprint: Footprint
    pairs: tuple[Pair, ...]
    memory_bytes: int | None = None

    @property
    def case(self) -> str:
        """Its name in tables."""
        return f"{self.model}, {self.phase} @ {self.depth}"

    @property
    def seconds(self) -> float:
        """The median time."""
        return statistics.median(pair.seconds for pair in self.pairs)

    @property
    def profile(self) -> DeviceProfile:
        """The machine at the last pass."""
        return self.pairs[-1].profile

    def error(self, efficiency: Efficiency) -> float:
        """Median relative error of the times predicted with ``efficiency``; positive when they are too long."""
        return statistics.median(
            self.predicted(efficiency, pair.profile).total_s / pair.seconds - 1 for pair in self.pairs
        )

    def predicted(self, efficiency: Efficiency, profile: DeviceProfile) -> PassTime:
        """The time predicted with ``efficiency`` for ``profile``."""
        plan = Plan(profile, self.footprint, self.memory_bytes or profile.usable_bytes)
        rates = device_rates(profile, efficiency, profile.storage[0])
        assert self.footprint.pass_cost is not None, "footprints of files have it"
        predictor = Predictor(self.footprint.pass_cost, rates, efficiency, plan.held_experts_share)
        return predictor.decode(self.depth) if self.phase == "decode" else predictor.prefill(PREFILL_CHUNK, self.depth)


def measure(model: Model, machine: DeviceProfile, folder: Path) -> list[Measured]:
    """Time decode and prefill of a model at each depth, each right after a probe.

    Args:
        model: what to measure; the file of a preset is written first if it does not exist.
        machine: profile of this machine; memory and kernels are measured again.
        folder: for the files of the packaged student.
    """
    probe = functools.partial(measure_again, machine, functools.partial(measure_rates, seconds=_RATE_SECONDS))
    if not model.memory:
        return list(_run(model, probe, folder))
    return _limited(model, functools.partial(_with_storage, probe, _file(model, folder)), folder)


def _run(model: Model, probe: Probe, folder: Path) -> Iterator[Measured]:
    path = _file(model, folder)
    memory_bytes = parse_memory(model.memory) if model.memory else None
    with GGUFFile.open(path) as file:
        spec = spec_from_metadata(file.metadata, file)
        request = LoadRequest(
            file=file,
            spec=spec,
            context=max(_DEPTHS) + 2 * PREFILL_CHUNK,
            n_threads=probe().n_threads,
            streams=model.memory is not None,
        )
        if not memory_bytes:
            _read(path)
        backend = open_backend(choose("native", request), request)
        timer = _Timer(backend.new_stream(request.context), spec.vocab_size, probe)
        for depth in _DEPTHS[:1] if memory_bytes else _DEPTHS:  # at depth 2048 it would read from storage for minutes
            for phase, pairs in timer.time(depth).items():
                yield Measured(
                    model=str(model),
                    phase=phase,
                    depth=depth,
                    footprint=file_footprint(spec, file),
                    pairs=tuple(pairs),
                    memory_bytes=memory_bytes,
                )
        backend.close()


class _Timer:
    def __init__(self, stream: TokenStream, vocab_size: int, probe: Probe) -> None:
        self._stream, self._probe = stream, probe
        some = np.random.default_rng(0).integers(0, min(vocab_size, 1000), max(_DEPTHS) + 2 * PREFILL_CHUNK)
        self._tokens: list[int] = some.tolist()

    def time(self, depth: int) -> dict[str, list[Pair]]:
        """Pairs by phase at ``depth``; the first passes are discarded, since they may wait for page faults."""
        stream, tokens = self._stream, self._tokens
        while stream.length < depth:
            stream.forward(tokens[stream.length :][: min(PREFILL_CHUNK, depth - stream.length)])
        pairs: dict[str, list[Pair]] = {"decode": [], "prefill": []}
        for index in range(_PAIRS + 1):
            profile = self._probe()
            stream.forward(tokens[-1:])
            chosen = tokens[index * _DECODED :][:_DECODED]  # different each time, so that MoE reads other experts
            token_s = self._seconds([[token] for token in chosen]) / _DECODED
            stream.truncate(depth)
            prompt_s = self._seconds([tokens[:PREFILL_CHUNK]])
            stream.truncate(depth)
            if index:
                pairs["decode"].append(Pair(token_s, profile))
                pairs["prefill"].append(Pair(prompt_s, profile))
        return pairs

    def _seconds(self, passes: list[list[int]]) -> float:
        start = time.perf_counter()
        for tokens in passes:
            self._stream.forward(tokens)
        return time.perf_counter() - start


def _read(path: Path) -> None:
    """Read a file into the page cache."""
    with path.open("rb", buffering=0) as file:
        while file.read(_READ_BYTES):
            pass


def _limited(model: Model, probe: Probe, folder: Path) -> list[Measured]:
    """Run in a child process whose control group limits its memory, page cache included.

    This process makes the probes that the child requests: in the group their memory would displace experts.
    """
    assert model.memory is not None, "a memory limit is given"
    drop_cached(_file(model, folder))
    cores = tuple(sorted(os.sched_getaffinity(0)))
    limits = Limits(memory_bytes=parse_memory(model.memory), cores=cores, cpu_share=1.0)
    groups = tuple(plan_groups(find_tree(), limits, f"sprat-prediction-{os.getpid()}"))
    found: list[Measured] = []
    with (
        Emulator(limits, _described(limits), groups).limited() as prefix,
        subprocess.Popen(
            [*prefix, sys.executable, __file__, str(model)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as child,
    ):
        assert child.stdin is not None, "it is a pipe"
        assert child.stdout is not None, "it is a pipe"
        for line in child.stdout:
            if line == _PROBE_REQUEST:
                child.stdin.write(msgspec.json.encode(probe()) + b"\n")
                child.stdin.flush()
            else:
                found.append(msgspec.json.decode(line, type=Measured))
    if child.returncode:
        raise SystemExit(f"{model}: the child process with the memory limit exited with status {child.returncode}")
    return found


def _with_storage(probe: Probe, path: Path) -> DeviceProfile:
    """The machine, with the random-read rate of the file's storage, which also changes within minutes."""
    profile = probe()
    rate = random_rate(path, 1 << 20)
    random_rate_mbps = Sourced(value=rate / 1e6, basis=Basis.MEASURED, source="reads of 1 MiB from the model's file")
    storage = msgspec.structs.replace(profile.storage[0], random_1mib_mbps=random_rate_mbps)
    return msgspec.structs.replace(profile, storage=(storage,))


def _described(limits: Limits) -> Emulation:
    return Emulation(
        cgroup_version=find_tree().version,
        memory_bytes=limits.memory_bytes,
        n_cores=len(limits.cores),
        cpu_share=limits.cpu_share,
        read_bytes_per_second=None,
        storage="this machine's",
        not_emulated=(),
    )


def _file(model: Model, folder: Path) -> Path:
    if model.name == "demo":
        return export(find_source("demo"), folder / model.quant, quant=model.quant).bundle.artifact("gguf")
    return cached_preset(model.name, model.quant, model.layers)


def _ask() -> DeviceProfile:
    """In the child: request a probe and wait for its profile."""
    _write(_PROBE_REQUEST)
    return msgspec.json.decode(sys.stdin.buffer.readline(), type=DeviceProfile)


def _write(line: bytes) -> None:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


def _serve() -> None:
    """In the child: measure the model named by the argument, one line per kind of pass on standard output."""
    model = next(model for model in MODELS if str(model) == sys.argv[1])
    for one in _run(model, _ask, Path()):
        _write(msgspec.json.encode(one) + b"\n")


if __name__ == "__main__":
    _serve()
