"""A child process: logits and greedy answer of a model on a GPU, split and set in ways, against the native backend.

``python every_split.py MODEL CASES`` prints for each case, a pair of placement and settings, its index, the mean KL
divergence over a prompt, and by how much the first greedy token that differs is worse.
"""

import json
import sys
from itertools import combinations
from pathlib import Path

import msgspec
import numpy as np

from sprat.devices.plan.context_settings import ContextSettings
from sprat.devices.plan.placement import Placement
from sprat.quant.quality import QualityMeter
from sprat.runtime.backends.gpu.find import find_gpus
from sprat.runtime.backends.gpu.use import GPUUse
from sprat.runtime.backends.llamacpp import LlamaCppBackend
from sprat.runtime.engine import Engine

TEXT = "The quick brown fox jumps over the lazy dog, and the dog sleeps on."
N_GREEDY = 8


def every_placement(n_layers, moe_layers):
    """All placements besides none: head and last layers on the card, of these any experts in memory."""
    for layers in range(n_layers + 1):
        movable = [index for index in moe_layers if index >= n_layers - layers]
        for count in range(len(movable) + 1):
            for stay in combinations(movable, count):
                yield Placement(n_layers=n_layers, layers=layers, head=True, experts_in_memory=stay)


def computed(backend, tokens):
    """Logits after each token, and those that choose each greedy token after them."""
    stream = backend.new_stream(len(tokens) + N_GREEDY)
    logits = stream.forward_all(tokens)
    greedy = [np.array(logits[-1])]
    while len(greedy) < N_GREEDY:
        greedy.append(np.array(stream.forward([int(greedy[-1].argmax())])))
    stream.close()
    return logits, greedy


def preference(expected, greedy):
    """By how many nats the native backend prefers its token where the first two differ; 0 if none do."""
    for base, logits in zip(expected, greedy, strict=True):
        if base.argmax() != logits.argmax():
            return float(base.max() - base[logits.argmax()])
    return 0.0


def main(path, cases):
    """Compare, and print a line for each."""
    with Engine.load(path, backend="native", exact=True) as engine:
        tokens = engine.encode(TEXT)
        base, expected = computed(engine.backend, tokens)
    [device] = find_gpus()
    pairs = msgspec.json.decode(cases, type=list[tuple[Placement, ContextSettings]])
    for index, (placement, settings) in enumerate(pairs):
        use = GPUUse(device=device.name, description=device.description, placement=placement)
        backend = LlamaCppBackend(Path(path), n_threads=1, use_extra_bufts=False, gpu=use, settings=settings)
        logits, greedy = computed(backend, tokens)
        backend.close()
        meter = QualityMeter()
        meter.add(base, logits, np.asarray(tokens))
        sys.stdout.write(json.dumps([index, float(meter.result().kld.value), preference(expected, greedy)]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
