"""Mutants: where they are, which are drawn, and how they are told from those that no test could notice."""

from collections import Counter

import pytest

from tests.clone import ROOT
from tests.mutation.__main__ import CONFIG
from tests.mutation.files import files_of, in_order
from tests.mutation.mutants import Change, Mutant, mutants, planted, sample
from tests.mutation.record import Record

SOUND = "def half(x):\n    return x / 2\n"


def population(*counts):
    """Return mutants at as many places as there are counts, each with its count of operators."""
    return [Mutant("a.py", f"operator {n}", 0, (place, 0)) for place, count in enumerate(counts) for n in range(count)]


def test_a_sample_has_one_mutant_of_a_place():
    drawn = sample(population(6, 1, 2), 3, seed=0)
    assert sorted(mutant.place for mutant in drawn) == [(0, 0), (1, 0), (2, 0)]


def test_a_place_of_many_operators_is_drawn_no_more_often():
    drawn = Counter(sample(population(50, 1), 1, seed)[0].place for seed in range(400))
    # Half of 400, with a standard deviation of 10.
    assert 150 < drawn[0, 0] < 250


def test_every_operator_of_a_place_can_be_drawn():
    drawn = {sample(population(3), 1, seed)[0].operator for seed in range(50)}
    assert drawn == {"operator 0", "operator 1", "operator 2"}


def test_a_seed_draws_the_same_sample_again():
    of_many = population(*[2] * 100)
    assert sample(of_many, 10, seed=3) == sample(of_many, 10, seed=3) != sample(of_many, 10, seed=4)


def test_no_more_is_drawn_than_there_is():
    assert len(sample(population(2, 2), 80, seed=0)) == 2


def test_a_change_is_known_by_its_lines():
    assert Change.between("a.py", SOUND, SOUND.replace("/", "*")) == Change("a.py", "return x / 2", "return x * 2")
    assert Change.between("a.py", f"@cache\n{SOUND}", SOUND) == Change("a.py", "@cache", "")


def test_a_change_that_is_no_python_says_so():
    sound = "def half(x, *, y): pass\n"
    assert Change.between("a.py", sound, sound.replace("*", "z")).is_python
    assert not Change.between("a.py", sound, sound.replace("*", "+")).is_python


def test_a_record_knows_outcomes_for_the_same_change_only(tmp_path):
    mutant, change = Mutant("a.py", "Div_Mul", 0, (2, 11)), Change("a.py", "return x / 2", "return x * 2")
    Record(tmp_path / "record").add(mutant, change, "survived")
    Record(tmp_path / "record").add(mutant, change, "killed")
    again = Record(tmp_path / "record")
    assert again.outcome(mutant, change) == "killed"
    assert again.outcome(mutant, Change("a.py", "return y / 2", "return y * 2")) is None


def test_the_folders_and_their_tests_exist():
    for folder, tests in CONFIG["tests"].items():
        paths = [folder, *(test.removeprefix("--deselect=").partition("::")[0] for test in tests)]
        assert tests and all((ROOT / path).exists() for path in paths)


def test_the_files_of_a_folder_are_found_and_options_are_not_files(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tests").mkdir()
    for name in ("test_outputs", "test_events", "conftest"):
        (tmp_path / f"tests/{name}.py").touch()
    found = files_of(["tests", "other/test_steps.py", "--deselect=tests/test_events.py::test"])
    assert found == ["tests/test_events.py", "tests/test_outputs.py", "other/test_steps.py"]


def test_the_tests_of_the_changed_file_come_first_then_the_quickest():
    cpu_s = {"tests/test_slow.py": 9.0, "tests/test_events_that_jump.py": 8.0, "tests/test_quick.py": 1.0}
    expected = ["tests/test_events_that_jump.py", "tests/test_quick.py", "tests/test_slow.py"]
    assert in_order(cpu_s, "solve/events.py") == expected


class TestOfCosmicRay:
    """What cosmic-ray, which only `tox run -e mutation` installs, does to a file."""

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path):
        pytest.importorskip("cosmic_ray", reason="cosmic-ray is not installed: tox run -e mutation")
        (tmp_path / "half.py").write_text(SOUND)

    def test_a_file_is_changed_while_a_mutant_is_planted(self, tmp_path):
        seen = set()
        for mutant in mutants(tmp_path, CONFIG["exclude_operators"]):
            with planted(mutant) as change:
                assert (tmp_path / "half.py").read_text() == SOUND.replace(change.line, change.mutant) != SOUND
                seen.add(change.mutant)
        assert {"return x * 2", "return x // 2", "return x / 3", "return x / 1"} <= seen
        assert (tmp_path / "half.py").read_text() == SOUND

    def test_excluded_operators_are_not_used(self, tmp_path):
        used = {mutant.operator for mutant in mutants(tmp_path, ["Binary"])}
        assert used and not any("Binary" in name for name in used)
