"""Every generated case is right, or refused by a name on the list (refusals.py), where torchdiffeq's code runs.

`python -m tests.generated ID` runs one case again. CI runs 1,000 cases, `tox -e nightly` 10,000.
"""

from tests.generated.case import draw
from tests.generated.judgement import run
from tests.generated.refusal_guard import PROPERTY
from tests.generated.tally import Tally

CHUNK = 50
"""So many cases are one test: few enough to share among processes, enough for pytest not to cost more than they."""


def pytest_generate_tests(metafunc):
    if "chunk" in metafunc.fixturenames:
        total = metafunc.config.getoption("--generated-cases")
        metafunc.parametrize("chunk", [range(n, min(n + CHUNK, total)) for n in range(0, total, CHUNK)], ids=first_last)


def first_last(chunk):
    return f"{chunk.start}-{chunk.stop - 1}"


def test_generated_cases_are_right_or_refused_by_name(chunk, record_property):
    tally, bad = Tally(), []
    for case_id in chunk:
        case = draw(case_id)
        outcome = run(case)
        tally.add(case, outcome)
        if not outcome.allowed:
            bad.append(f"{case}\n    {outcome.kind}: {outcome.detail}")
    record_property(PROPERTY, tally.to_text())
    assert not bad, "\n".join([f"{len(bad)} of {len(chunk)}; python -m tests.generated ID runs one again", *bad])
