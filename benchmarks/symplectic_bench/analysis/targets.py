"""A suite's targets in words: how far each was reached, and what misses it."""

from symplectic_bench.analysis.trials import Judgement, Outcome
from symplectic_bench.spec.suite import Target


def headline(judgement: Judgement[Target]) -> str:
    """The target, and how far it was reached."""
    target, met = judgement.trial, judgement.count(Outcome.MET)
    worst = "" if judgement.worst is None else f"worst {judgement.worst:.3g}, "
    sentence = f"{target.point}. {target.name}: {target.wanted}"
    return f"{sentence}; {worst}met in {met} of {len(judgement.verdicts)}"


def shortfalls(judgement: Judgement[Target]) -> list[str]:
    """A line for every cell that misses, and one for every reason of those that were not measured."""
    missed = [v for v in judgement.verdicts if v.outcome is Outcome.NOT_MET]
    open_ = [v for v in judgement.verdicts if v.outcome is Outcome.NOT_MEASURED]
    reasons = dict.fromkeys(verdict.note for verdict in open_)
    return [f"{v.measured:.3g}: {v.group}: {v.cell}{f' ({v.note})' if v.note else ''}" for v in missed] + [
        f"not measured ({sum(v.note == reason for v in open_)}): {reason}" for reason in reasons
    ]
