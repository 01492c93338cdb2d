"""Findings of a check or a comparison as Markdown, such as a comment on a pull request."""

from collections.abc import Sequence

from symplectic_bench.analysis.regression import Finding, Kind, of_kind
from symplectic_bench.report.numerals import MISSING, count_of
from symplectic_bench.report.typesetting import markdown_text


def to_markdown(
    suite: str, findings: Sequence[Finding], compared: int, new: int, time_decides: bool, remark: str = ""
) -> str:
    """Return a summary: which metrics changed, by how much, in which cells, and what was not compared."""
    red = of_kind(findings, Kind.REGRESSION, *([Kind.SLOWER] if time_decides else []))
    result = count_of(len(red), "regression") if red else "no regression"
    parts = [f"### {suite}: {result}", f"{count_of(compared, 'cell')} compared with the baseline."]
    if new:
        parts.append(f"{count_of(new, 'new cell')}: `check --update` adds to the baseline.")
    if remark:
        parts.append(f"{remark[0].upper()}{markdown_text(remark[1:])}.")
    titles = {
        Kind.REGRESSION: "Regressions",
        Kind.SLOWER: "Slower" if time_decides else "Slower (advisory)",
        Kind.ELSEWHERE: "Allowed on another kind of processor",
        Kind.MOVED: "Changed within the tolerance",
    }
    for kind, title in titles.items():
        chosen = of_kind(findings, kind)
        if chosen:
            parts += [f"#### {title}", _table(chosen)]
    return "\n\n".join(parts) + "\n"


def _table(findings: Sequence[Finding]) -> str:
    lines = [("cell", "metric", "baseline", "now", "change", "allowed"), (":---", ":---", *["---:"] * 4)]
    lines += [(f.cell, f.metric, *_shown(f), _change(f), f.allowed) for f in findings]
    return "\n".join(f"| {' | '.join(map(markdown_text, line))} |" for line in lines)


def _shown(finding: Finding) -> list[str]:
    given = (finding.baseline, finding.measured)
    return [MISSING if value is None else text for value, text in zip(given, finding.values, strict=True)]


def _change(finding: Finding) -> str:
    """Return the change in percent if both values are numbers and the baseline is not zero."""
    before, now = finding.baseline, finding.measured
    if not (isinstance(before, int | float) and isinstance(now, int | float)) or not before:
        return MISSING
    return f"{100 * (now / before - 1):+.3g} %"
