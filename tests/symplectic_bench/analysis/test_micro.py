"""The file of pytest-benchmark, read as cells."""

import json

import pytest

from symplectic_bench.analysis.baseline import METRICS, TIME, UnfitForBaseline
from symplectic_bench.analysis.micro import REFERENCE, read_micro


def one(name, median, **counters):
    return {"name": name, "stats": {"median": median}, "extra_info": counters}


def written(path, *benchmarks):
    path.write_text(json.dumps({"benchmarks": benchmarks}))
    return path


def test_times_are_multiples_of_the_reference_and_counters_are_metrics(tmp_path):
    found = read_micro(written(tmp_path / "m.json", one(REFERENCE, 0.5), one("test_step", 2.0, f_calls_forward=6)))
    assert [line[TIME] for line in found] == [1.0, 4.0]
    assert found[1] == {
        **dict.fromkeys(METRICS),
        "f_calls_forward": 6,
        "cell_id": "test_step",
        "cell": "test_step",
        "dtype": "float64",
        "status": "ok",
        TIME: 4.0,
        "total_s": 2.0,
    }


@pytest.mark.parametrize(
    "text",
    [
        "not JSON",
        "{}",
        json.dumps({"benchmarks": [one("test_step", 2.0)]}),
        json.dumps({"benchmarks": [one(REFERENCE, 0.0)]}),
        json.dumps({"benchmarks": [one(REFERENCE, None)]}),
        json.dumps({"benchmarks": [one(REFERENCE, "soon")]}),
        None,
    ],
    ids=["no JSON", "no benchmarks", "no reference", "a reference of 0 s", "no median", "a word", "no file"],
)
def test_a_file_without_a_time_of_the_reference_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "m.json").write_text(text)
    with pytest.raises(UnfitForBaseline, match=f"m.json is not a pytest-benchmark file with the benchmark {REFERENCE}"):
        read_micro(tmp_path / "m.json")
