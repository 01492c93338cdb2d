"""Outcomes counted by kind of case and by name of refusal, the table of them, and the refusals that are allowed."""

import json
from collections import Counter, defaultdict
from pathlib import Path

from tests.generated.outcome import KINDS

ALLOWED = Path(__file__).with_name("allowed_refusals.json")
"""How many of the first 1,000 cases, and of 10,000, may be refused, by name."""
AXES = ("closure", "change", "passes", "gradient", "dtype", "event", "state", "outputs")


class Tally:
    """Counts of outcomes, which can be added up and sent between processes."""

    def __init__(self):
        self.total, self.refusals = 0, Counter()
        self.kinds = defaultdict(Counter)
        """For each kind of case, such as "dtype: float64", how often each outcome."""

    def add(self, case, outcome):
        self.total += 1
        for axis in AXES:
            self.kinds[f"{axis}: {getattr(case, axis)}"][outcome.kind] += 1
        if outcome.kind == "refused":
            self.refusals[outcome.detail] += 1

    def to_text(self):
        return json.dumps([self.total, self.refusals, self.kinds])

    def merge(self, text):
        """Add the counts of another tally, given as its to_text."""
        total, refusals, kinds = json.loads(text)
        self.total += total
        self.refusals.update(refusals)
        for kind, counts in kinds.items():
            self.kinds[kind].update(counts)

    def table(self):
        """Return the outcomes by kind of case, and the share that was refused by name."""
        widths = [len(kind) + 3 for kind in KINDS]
        lines = [f"{'':40}" + "".join(f"{kind:>{width}}" for kind, width in zip(KINDS, widths, strict=True))]
        for axis in AXES:
            for name in sorted(key for key in self.kinds if key.startswith(f"{axis}: ")):
                counts = [self.kinds[name][kind] or "." for kind in KINDS]
                lines.append(f"{name:40}" + "".join(f"{n:>{width}}" for n, width in zip(counts, widths, strict=True)))
        for name, n in sorted(self.refusals.items()):
            lines.append(f"refused: {n:5} of {self.total}, {n / self.total:6.2%}: {name}")
        n = self.refusals.total()
        lines.append(f"refused: {n:5} of {self.total}, {n / max(self.total, 1):6.2%} in all")
        return "\n".join(lines)

    def rises(self, allowed):
        """Return a line for each name that is refused more often than is allowed."""
        return [
            f"{name}: {n} of {self.total} cases refused, {allowed.get(name, 0)} allowed in {ALLOWED.name}"
            for name, n in sorted(self.refusals.items())
            if n > allowed.get(name, 0)
        ]


def allowed_refusals(total):
    """Return the allowance for the first `total` cases; None if that is not a number that is run regularly."""
    return json.loads(ALLOWED.read_text()).get(str(total))
