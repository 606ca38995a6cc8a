from pathlib import Path

import pytest

from sprat.errors import InputError
from sprat.export.quality.options import QualityOptions


def options(level=None, **changes):
    given = {"target_size": None, "target_bpw": None, "match_size": None, "max_kld": None, "calibration": ()}
    return QualityOptions.of(level, **(given | changes))


def test_nothing_asked_is_the_plain_export():
    assert options().level == "none"


def test_a_target_or_a_text_means_balanced(tmp_path):
    (tmp_path / "other.gguf").write_bytes(bytes(77))
    assert options(target_size="6.2GB").target.file_bytes == 6_200_000_000
    assert options(match_size=tmp_path / "other.gguf").target.file_bytes == 77
    assert options(target_bpw=3.4).level == options(calibration=["a.txt"]).level == "balanced"
    assert options("best", max_kld=0.02).target.max_kld == 0.02


def test_one_file_needs_no_list():
    assert options(calibration="a.txt").calibration == (Path("a.txt"),)


@pytest.mark.parametrize(
    ("level", "changes", "match"),
    [
        ("better", {}, "unknown quality 'better'.*best"),
        (None, {"target_size": "1GB", "max_kld": 0.1}, "--target-size and --max-kld contradict"),
        ("none", {"target_bpw": 4.0}, "--quality none takes no --target-bpw"),
        ("none", {"calibration": ["a"]}, "--quality none takes no --calibration"),
        ("fast", {"max_kld": 0.1}, "measures nothing, so it takes no --max-kld"),
        ("fast", {"calibration": ["a"]}, "takes no --calibration"),
        ("fast", {"imatrix_out": "i.gguf"}, "takes no --imatrix-out"),
        (None, {"target_bpw": 0.0}, "--target-bpw 0.0: expected above 0"),
        (None, {"target_bpw": float("nan")}, "--target-bpw nan: expected above 0"),
        (None, {"max_kld": -1.0}, "--max-kld -1.0: expected a positive number"),
        (None, {"target_size": "much"}, "target-size: found 'much'"),
        (None, {"match_size": "/no/such/file"}, "--match-size /no/such/file: is not a file"),
    ],
)
def test_contradictions_are_refused(level, changes, match):
    with pytest.raises(InputError, match=match):
        options(level, **changes)
