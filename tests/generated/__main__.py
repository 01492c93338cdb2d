"""Run one generated case, or the cases of a range: python -m tests.generated 4711, python -m tests.generated 0 1000."""

import argparse
import gc
import json
import re
from collections import Counter

import torch

from tests.generated.case import draw
from tests.generated.judgement import run
from tests.generated.tally import ALLOWED, Tally


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.generated", description=__doc__)
    parser.add_argument("first", type=int, help="the id of a case")
    parser.add_argument("end", type=int, nargs="?", help="the id at which to stop")
    parser.add_argument("--allow", action="store_true", help=f"write the refusals of this run to {ALLOWED.name}")
    given = parser.parse_args()
    torch.set_num_threads(1)
    gc.freeze()  # as in tests/conftest.py
    if given.end is None:
        case = draw(given.first)
        outcome = run(case)
        print(f"{case}\n{outcome.kind}: {outcome.detail}")
        return 0 if outcome.allowed else 1
    tally, bad = Tally(), []
    for case_id in range(given.first, given.end):
        case = draw(case_id)
        outcome = run(case)
        tally.add(case, outcome)
        if not outcome.allowed:
            bad.append((case_id, f"{outcome.kind}: {outcome.detail}"))
    print(tally.table())
    print(*grouped(bad), sep="\n")
    if given.allow:
        allowed = json.loads(ALLOWED.read_text()) | {str(tally.total): tally.refusals}
        ALLOWED.write_text(json.dumps(allowed, indent=2, sort_keys=True) + "\n")
    return 1 if bad else 0


def grouped(bad):
    """Return a line for each kind of message, with the ids of some cases."""
    lines = Counter(_without_numbers(message) for _, message in bad)
    for line, n in lines.most_common():
        ids = [str(case_id) for case_id, message in bad if _without_numbers(message) == line]
        yield f"{n:5} {line} (cases {', '.join(ids[:8])}{', ...' if n > 8 else ''})"


def _without_numbers(message):
    return re.sub(r"-?\d[\d.e+-]*", "#", message)[:150]


if __name__ == "__main__":
    raise SystemExit(main())
