"""gpu-report keeps what is measured, even if a later row is interrupted."""

import json

import pytest

from symplectic_bench.commands import gpu_report
from symplectic_bench.run.card_rows import ROWS


def test_the_file_is_written_after_each_row(monkeypatch, tmp_path, capsys):
    def interrupted(chosen, cache, on_progress):
        yield []
        raise KeyboardInterrupt

    monkeypatch.setattr("symplectic_bench.contenders.reasons.has_cuda", lambda: True)
    monkeypatch.setattr("symplectic_bench.run.card_rounds.measure_rows", interrupted)
    file = tmp_path / "report.json"
    with pytest.raises(KeyboardInterrupt):
        gpu_report._measure([ROWS[0].name, ROWS[1].name], file)
    report = json.loads(file.read_text())
    assert report["rows"] == [] and ROWS[0].name in json.dumps(report["targets"])
