import json
import sys

import coverage_floor


def report(total, **modules):
    files = {path: {"summary": {"percent_covered": percent}} for path, percent in modules.items()}
    return {"totals": {"percent_covered": total}, "files": files}


def test_covered_modules_pass():
    assert coverage_floor.complaints(report(93.0, a=80.0, b=100.0)) == []


def test_a_module_below_its_floor_is_named_the_worst_first():
    lines = coverage_floor.complaints(report(95.0, good=81.0, poor=79.9, worst=0.0))
    assert [line.split(":")[0] for line in lines] == ["worst", "poor"]


def test_a_total_below_its_floor_is_told():
    assert coverage_floor.complaints(report(92.99, a=100.0)) == ["all modules together: 92.99 %, floor 93.0 %"]


def test_a_report_of_nothing_is_no_success():
    assert coverage_floor.complaints(report(100.0)) == ["no module was measured"]


def test_the_exit_status_is_for_make(tmp_path, monkeypatch, capsys):
    path = tmp_path / "coverage.json"
    for total, status in ((94.0, 0), (92.0, 1)):
        path.write_text(json.dumps(report(total, a=90.0)))
        monkeypatch.setattr(sys, "argv", ["coverage_floor.py", str(path)])
        assert coverage_floor.main() == status
    assert "92.00 %, floor" in capsys.readouterr().err
