"""Nodes of a graph that a provider computes, nodes that fall back to the CPU, and the error of the logits.

onnxruntime is asked in a child process (:mod:`~sprat.runtime.backends.providers.child`), since a driver that crashes
takes its process with it. The nodes come from its verbose log, the one place where every version names all of them.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from sprat.errors import BackendError
from sprat.runtime.backends.providers.computed import Computed
from sprat.runtime.backends.providers.library import missing_because
from sprat.runtime.backends.providers.names import CPU, full_name, install_hint
from sprat.runtime.backends.providers.settings import ProviderSettings

__all__ = ["FallbackNodes", "ProviderUse", "provider_use", "read_placements"]

_CHILD = "sprat.runtime.backends.providers.child"
_TIMEOUT_SECONDS = 1800  # a software driver is slow
_GROUP = re.compile(r"(?:Node\(s\)|All nodes) placed on \[(\w+)\]\. Number of nodes: (\d+)")
_NODE = re.compile(r"VerifyEachNodeIsAssignedToAnEp\]\s+(\w+) \((.*)\)$")
_NUMBER = re.compile(r"(?<=[._])\d+")
_LOGGED = re.compile(r"^\S*\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ \[[VIW]:")  # not an error


@dataclass(frozen=True, slots=True)
class FallbackNodes:
    """Nodes of one operator that the CPU computes; ``name`` has ``*`` for the numbers of layers, heads and experts."""

    operator: str
    name: str
    n_nodes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderUse:
    """Result of running a graph with an execution provider.

    Attributes:
        provider: its short name.
        version: of onnxruntime; empty where the child died.
        n_nodes: nodes that the provider computes, those in branches included.
        n_fallback_nodes: nodes that the CPU computes instead.
        fallback: these nodes, most first.
        prompt_error: largest difference from the CPU's logits over a prompt of 80 tokens in two runs, as a share of the
            largest logit; ``None`` where the run failed.
        decode_error: the same for the first 12 tokens in a run each, as in decode.
        problem: why the run failed; empty if it did not.
    """

    provider: str
    version: str
    n_nodes: int
    n_fallback_nodes: int
    fallback: tuple[FallbackNodes, ...]
    prompt_error: float | None
    decode_error: float | None
    problem: str


def provider_use(model: Path, provider: ProviderSettings) -> ProviderUse:
    """Load and run the graph ``model`` with ``provider`` in a child process.

    Raises:
        BackendError: onnxruntime or the provider is not installed, or does not load the graph.
    """
    if why := missing_because():
        raise BackendError(why)
    settings = msgspec.json.encode(provider).decode()
    command = [sys.executable, "-P", "-m", _CHILD, str(model), settings]
    try:
        child = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise BackendError(
            f"{model}: {provider.name} did not finish within {_TIMEOUT_SECONDS} s; try a small model"
        ) from error
    log = child.stderr.decode("utf-8", "replace").splitlines()
    return _use(model, provider.name, _computed(child, log), log)


def _computed(child: subprocess.CompletedProcess[bytes], log: list[str]) -> Computed:
    """The child's output, or how the child ended."""
    if child.returncode == 0:
        return msgspec.json.decode(child.stdout, type=Computed)
    errors = [line.strip() for line in log if line.strip() and not _LOGGED.match(line)]
    ending = f"exit code {child.returncode}" if child.returncode > 0 else signal.Signals(-child.returncode).name
    return Computed(version="", available=(), problem=f"{ending}: {errors[-1] if errors else 'no message'}")


def _use(model: Path, provider: str, computed: Computed, log: list[str]) -> ProviderUse:
    if not computed.problem and full_name(provider) not in computed.available:
        raise BackendError(
            f"onnxruntime {computed.version} has no {full_name(provider)}, only {', '.join(computed.available)}; "
            f"{install_hint(provider)}"
        )
    counts, fallback = read_placements(log)
    if not counts:
        raise BackendError(f"{model}: {provider} does not load it ({computed.problem or 'nodes were not logged'})")
    n_fallback = counts.pop(CPU, 0)
    return ProviderUse(
        provider=provider,
        version=computed.version,
        n_nodes=sum(counts.values()),
        n_fallback_nodes=n_fallback,
        fallback=fallback,
        prompt_error=computed.prompt_error,
        decode_error=computed.decode_error,
        problem=computed.problem,
    )


def read_placements(log: Iterable[str]) -> tuple[dict[str, int], tuple[FallbackNodes, ...]]:
    """Number of nodes per provider, and the CPU's nodes, in the first list of nodes of a verbose log.

    The list has a line for each provider, and below it one for each node::

        ... VerifyEachNodeIsAssignedToAnEp]  Node(s) placed on [CPUExecutionProvider]. Number of nodes: 2
        ... VerifyEachNodeIsAssignedToAnEp]   Shape (blk.0/attn/Shape)
    """
    counts: dict[str, int] = {}
    nodes: Counter[tuple[str, str]] = Counter()
    provider = ""
    for line in log:
        if group := _GROUP.search(line):
            provider, n_nodes = group[1], int(group[2])
            counts[provider] = n_nodes
        elif provider == CPU and (node := _NODE.search(line)):
            nodes[node[1], _NUMBER.sub("*", node[2])] += 1
    return counts, tuple(FallbackNodes(*key, n) for key, n in nodes.most_common())
