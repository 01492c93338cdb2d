"""Pages of what libraries can do, from the record of a survey."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from symplectic_bench.features.answer import Answer, Verdict
from symplectic_bench.features.probe import Family, Probe
from symplectic_bench.features.probes import FAMILIES, PROBES
from symplectic_bench.features.survey import Column
from symplectic_bench.report.typesetting import markdown_text

BEGIN = "<!-- features: written by `symplectic-bench features`, do not edit -->"
END = "<!-- end of features -->"

LOSSES = ("per_sample_steps", "times_per_sample", "multistep", "vmap", "fullgraph", "sde")
"""Rows of README's table that open it: what is absent here and present elsewhere."""

CHOSEN = (
    *LOSSES,
    "no_graph",
    "exact",
    "closure",
    "end_time",
    "many_outputs",
    "event_gradient",
    "dict_state",
    "double_backward",
    "stiff",
    "autocast",
    "weight_changed",
    "number_changed",
    "unknown_option",
)
"""Rows of README's table."""

FORMS = {Verdict.YES: "yes", Verdict.NO: "no", Verdict.WRONG: "**wrong**", Verdict.REFUSED: "refused"}
ABSENT = "·"


def lost(columns: Mapping[str, Column]) -> list[Probe]:
    """Return the probes to which this library does not say yes."""
    return [probe for probe in PROBES.values() if word(columns, "ours", probe.name) != "yes"]


def word(columns: Mapping[str, Column], library: str, probe: str) -> str:
    """Return the word in a cell."""
    column = columns.get(library)
    answer = None if column is None else column.answers.get(probe)
    return ABSENT if answer is None else FORMS[answer.verdict]


def table(columns: Mapping[str, Column], probes: Iterable[Probe], shown: Iterable[str]) -> str:
    """Return a Markdown table of the libraries shown, a row for each probe."""
    shown = list(shown)
    lines = [["", *shown], [":---", *[":---"] * len(shown)]]
    lines += [[markdown_text(probe.question), *(word(columns, one, probe.name) for one in shown)] for probe in probes]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def installed(columns: Mapping[str, Column]) -> list[str]:
    """Return the names of the libraries that were asked."""
    return [name for name, column in columns.items() if not column.missing]


def readme_block(columns: Mapping[str, Column]) -> str:
    """Return the table of README, between its markers."""
    titles = {probe.name: family.title for family in FAMILIES for probe in family.probes}
    chosen = [PROBES[name] for name in CHOSEN]
    named = [replace(probe, question=f"{titles[probe.name]}: {probe.question}") for probe in chosen]
    rows = table(columns, named, installed(columns))
    return f"{BEGIN}\n\n{rows}\n\n{END}"


def with_block(page: str, block: str) -> str:
    """Return the page with what is between its markers replaced.

    Raises:
        ValueError: if the page does not have each marker once.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise ValueError(f"the page must have the two lines {BEGIN} and {END} once each")
    before, _, rest = page.partition(BEGIN)
    return before + block + rest.partition(END)[2]


def to_page(columns: Mapping[str, Column], torch: str) -> str:
    """Return results/features/README.md."""
    shown = installed(columns)
    blocks = [
        "# Features by probe",
        "Each row is a tiny program whose answer is known, run against each library in the way that its user would "
        "write it. *yes*: the answer is right. *no*: there is no such thing in the library, or not at that cost. "
        "*refused*: an error. **wrong**: another answer, or none, without an error. A dot: not asked. Why a cell is "
        "not *yes* stands below the tables. Written by `symplectic-bench features`.",
        libraries(columns, torch),
        "## Not here",
        "These are the probes to which `ours` does not say yes. Steps per sample are absent here, and present in "
        "torchode and diffrax.",
        table(columns, lost(columns), shown),
    ]
    for family in FAMILIES:
        blocks += [f"## {family.title}", table(columns, family.probes, shown)]
    blocks.append("## Why")
    blocks += [reasons(columns, name) for name in shown]
    return "\n\n".join(blocks) + "\n"


def libraries(columns: Mapping[str, Column], torch: str) -> str:
    """Return a table of what was asked, in which version, and what was absent."""
    lines = ["| library | called | version | yes | no | refused | wrong |", "|:---|:---|:---|---:|---:|---:|---:|"]
    for name, column in columns.items():
        if column.missing:
            continue
        verdicts = [answer.verdict for answer in column.answers.values()]
        order = (Verdict.YES, Verdict.NO, Verdict.REFUSED, Verdict.WRONG)
        counts = " | ".join(str(verdicts.count(verdict)) for verdict in order)
        lines.append(f"| {name} | `{column.entry}` | {column.version} | {counts} |")
    absent = [f"- {markdown_text(column.missing)}" for column in columns.values() if column.missing]
    return "\n".join([*lines, "", f"With PyTorch {torch}, on the CPU.", *(["", *absent] if absent else [])])


def reasons(columns: Mapping[str, Column], name: str) -> str:
    """Return the details of a library's answers, one line each."""
    lines = [f"### {name}", ""]
    for family in FAMILIES:
        lines += [reason(family, probe, columns[name].answers[probe.name]) for probe in family.probes
                  if probe.name in columns[name].answers and columns[name].answers[probe.name].detail]  # fmt: skip
    return "\n".join(lines)


def reason(family: Family, probe: Probe, answer: Answer) -> str:
    """Return one line of the details."""
    what = markdown_text(f"{family.title}, {probe.question}")
    return f"- {what}: {FORMS[answer.verdict]}, {markdown_text(answer.detail)}"
