"""Write ``tests/demo/golden.npz``: transformers' logits of the packaged student, for a test that needs no torch.

python examples/train_student/golden.py     # with sprat installed
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from sprat import demo

PROMPTS = (
    "Tom has 347 apples and buys 285 more. How many apples does he have now?",
    "Could you dim the bedroom light to 40 percent in ten minutes?",
)
LAST = 6
"""Positions whose logits are kept, at the end of the prompt: they depend on all tokens before."""
TARGET = Path(__file__).parents[2] / "tests" / "demo" / "golden.npz"


def main() -> None:
    """Run both prompts through unmodified transformers, in float32."""
    model = AutoModelForCausalLM.from_pretrained(demo.path(), dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(demo.path())
    arrays: dict[str, np.ndarray] = {}
    for index, prompt in enumerate(PROMPTS):
        chat = [{"role": "user", "content": prompt}]
        text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
        with torch.inference_mode():
            logits = model(ids).logits[0]
        arrays |= {f"prompt_{index}": np.array(prompt), f"tokens_{index}": ids[0].numpy().astype(np.int32)}
        arrays[f"logits_{index}"] = logits[-LAST:].numpy()
    np.savez_compressed(TARGET, transformers=np.array(transformers.__version__), **arrays)
    print(f"{TARGET}: {TARGET.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
