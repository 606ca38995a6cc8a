"""What absent keys of a ``config.json`` mean to transformers, by architecture: ``tests/data/config_defaults.json``.

Make it again after a new release of transformers: ``python tests/support/transformers_defaults.py``.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from sprat.runtime.arch.architecture import config_readers

STORED = Path(__file__).parents[1] / "data" / "config_defaults.json"


def of_transformers() -> dict[str, dict[str, Any]]:
    """Architecture -> the fields that its config class declares, with their defaults."""
    import transformers

    known = {field.name for field in dataclasses.fields(transformers.PreTrainedConfig)}
    found = {}
    for name in sorted(config_readers()):
        declared = dataclasses.fields(getattr(transformers, name).config_class)
        found[name] = {field.name: field.default for field in declared if field.name not in known}
    return found


def stored() -> dict[str, dict[str, Any]]:
    """The same, as it was when the file was made."""
    return json.loads(STORED.read_text())


if __name__ == "__main__":
    STORED.write_text(json.dumps(of_transformers(), indent=1, sort_keys=True) + "\n")
