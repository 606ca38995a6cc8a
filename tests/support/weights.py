"""Weights that are hard to quantize: extremes, zeros of both signs, denormals, ties, constants; and ordinary ones."""

import numpy as np


def hard_weights() -> dict[str, np.ndarray]:
    """Finite float32 weights ``(n, 512)`` by name; ``n`` is odd, so that no vector length divides the blocks."""
    rng = np.random.default_rng(7)
    shape = (13, 512)
    normal = rng.standard_normal(shape)
    bits = rng.integers(0, 2**32, shape, dtype=np.uint32).view(np.float32)
    bfloat16 = (normal.astype(np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)
    weights = {
        "normal": normal,
        "heavy tails": rng.standard_t(2, shape) / 100,
        "a scale per row": normal * 10.0 ** np.linspace(-44, 37, 13)[:, None],
        "a scale per weight": normal * 10.0 ** rng.integers(-9, 4, shape),
        "few bits": bfloat16,
        "ties": rng.integers(-3, 4, shape),
        "zeros of both signs": np.where(normal > 0, 0.0, -0.0),
        "nearly all zeros": np.where(normal > 2, normal, -0.0),
        "constant rows": np.broadcast_to(normal[:, :1], shape),
        "positive": np.abs(normal),
        "offset": normal / 10 + 1,
        "any bits": np.where(np.isfinite(bits), bits, 0),
        "largest": np.where(normal > 0, 3.4e38, -3.4e38),
        "smallest": rng.integers(-5, 6, shape) * 1.4e-45,
        "denormal": normal * 1e-38,
        "denormal in binary16": normal * 1e-6,
    }
    return {name: np.ascontiguousarray(found, np.float32) for name, found in weights.items()}


def ordinary_weights() -> dict[str, np.ndarray]:
    """Weights with the distributions of real models, ``(256, 512)``, by name."""
    rng = np.random.default_rng(11)
    return {
        "gaussian": rng.standard_normal((256, 512), np.float32) / 50,
        "student-t": (rng.standard_t(4, (256, 512)) / 50).astype(np.float32),
    }
