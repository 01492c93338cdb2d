"""The list of mutants that no test could notice."""

import re

from tests.clone import ROOT
from tests.mutation.equivalent import LIST, Equivalent
from tests.mutation.mutants import Change

EQUIVALENT = Equivalent("""
[[change]]
file = "a.py"
line = "return x / 1"
mutant = "return x * 1"
reason = "..."

[[kind]]
text = "strict=True"
mutant = "strict=False"
reason = "..."
""")


def test_a_change_is_equivalent_in_its_file_alone():
    assert Change("a.py", "return x / 1", "return x * 1") in EQUIVALENT
    assert Change("b.py", "return x / 1", "return x * 1") not in EQUIVALENT
    assert Change("a.py", "return x / 1", "return x - 1") not in EQUIVALENT


def test_a_kind_is_equivalent_anywhere_at_one_place():
    twice = "zip(zip(a, b, strict=True), c, strict=True)"
    assert Change("b.py", twice, twice.replace("strict=True", "strict=False", 1)) in EQUIVALENT
    assert Change("b.py", twice, "zip(zip(a, b, strict=True), c, strict=False)") in EQUIVALENT
    assert Change("b.py", twice, twice.replace("strict=True", "strict=False")) not in EQUIVALENT
    assert Change("b.py", "f(loose=True)", "f(loose=False)") not in EQUIVALENT


def test_every_change_in_the_list_could_still_be_made():
    for change in Equivalent().changes:
        lines = {line.strip() for line in (ROOT / change.file).read_text().splitlines()}
        assert set(change.line.splitlines()) <= lines and change.line != change.mutant, change


def test_every_entry_of_the_list_has_its_reason():
    entries = re.split(r"^\[\[\w+\]\]$", LIST.read_text(), flags=re.MULTILINE)[1:]
    assert all(entry.count("\nreason = ") == 1 for entry in entries)
    known = Equivalent()
    assert len(entries) == len(known.changes) + len(known.kinds)
