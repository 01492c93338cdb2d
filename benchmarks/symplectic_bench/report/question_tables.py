"""The tables of a suite's questions: one for each, our losses first, and one of all their verdicts."""

from collections import Counter
from collections.abc import Sequence

from symplectic_bench.analysis.questions import COST, LOSSES_FIRST, SAME, TIME, answer, loss
from symplectic_bench.analysis.summary import Line
from symplectic_bench.analysis.verdicts import Verdict, is_judged
from symplectic_bench.report.columns import Column, measured_columns, notes, numbers, shown_status, texts
from symplectic_bench.report.comparisons import WRITTEN, with_written_ratios, words_on_test
from symplectic_bench.report.numerals import MISSING, count, mebibytes, milliseconds, scientific, text, three_digits
from symplectic_bench.report.typesetting import Section, Table
from symplectic_bench.spec.question import AskedQuestion, By

COSTS: dict[By, str] = {"time": "time", "memory": "peak of live tensors", "error": "true error of the gradient"}

ANSWER: tuple[Column, ...] = (
    ("gradient", "name", text),
    ("ours against it", "verdict", text),
    ("our time over its", WRITTEN + TIME, text),
    ("our cost over its", COST, three_digits),
    ("status", "shown_status", text),
    ("time, ms", "total_s", milliseconds),
    ("tensors, MiB", "peak_tensor_bytes", mebibytes),
    ("RSS, MiB", "peak_rss_bytes", mebibytes),
    ("error, discrete", "error_discrete", scientific),
    ("error, true", "error_true", scientific),
    ("steps", "steps_accepted", count),
    ("f calls", "f_calls", count),
    ("first call, s", "compile_s", three_digits),
)

GLANCE: tuple[Column, ...] = (
    ("question", "question", text),
    ("decided by", "by", text),
    ("ours", "ours", text),
    *((str(verdict), str(verdict), count) for verdict in LOSSES_FIRST),
    ("our greatest loss", "loss", text),
)


def question_tables(lines: Sequence[Line], where: str, questions: Sequence[AskedQuestion]) -> list[Table]:
    """Return the verdicts at a glance, then a table for each question, in the suite's order."""
    answers = [answer(question, lines) for question in questions]
    glance = [_glance_line(*one) for one in zip(questions, answers, strict=True)]
    caption = (
        "Of how many peers ours is behind, and so on, over all groups of a question; each is answered in a table"
        " below. Verdicts are those of that table alone."
    )
    section = Section("", tuple(texts(line, GLANCE) for line in glance))
    headings = tuple(column[0] for column in GLANCE)
    first = Table("questions", "Questions at a glance", caption, where, headings, (section,), tuple(glance))
    numbered = enumerate(zip(questions, answers, strict=True), start=1)
    return [first, *(question_table(*one, where, number) for number, one in numbered)]


def question_table(question: AskedQuestion, answered: Sequence[Line], where: str, number: int) -> Table:
    """Return the table of a question, one section for each of its groups."""
    lines = [with_written_ratios(line, [TIME]) | {"shown_status": shown_status(line)} for line in answered]
    columns = measured_columns(ANSWER, lines)
    sections = []
    for group_id, group in {line["group_id"]: line["group"] for line in lines}.items():
        cells = [line for line in lines if line["group_id"] == group_id]
        heading = f"{question.ours[group_id]}: {_counted(cells)} ({group})"
        shown = tuple(texts(line, columns) for line in cells)
        sections.append(Section(heading, shown, (*_losses(cells, question.by), *notes(cells))))
    headings = tuple(column[0] for column in columns)
    title, caption = f"{number}. {question.title}", _caption(question, lines)
    return Table(f"question-{number}", title, caption, where, headings, tuple(sections), numbers(lines))


def _caption(question: AskedQuestion, lines: Sequence[Line]) -> str:
    ours = sorted(set(question.ours.values()))
    words = f"{' and '.join(ours)} against each peer, losses first: {_counted(lines)}. Decided by the "
    words += COSTS[question.by]
    if question.by != "time":
        words += (
            " beside the time: behind is more of one and no less of the other, a trade less of one and more of the"
            f" other; costs within {100 * SAME:g} % are the same"
        )
    words += ". Rows without a verdict are other gradients of ours, or were not measured or excluded: see the notes."
    if not any(is_judged(line, TIME) for line in lines):
        return f"{words} Verdicts need ten paired rounds or more."
    return f"{words} {words_on_test(lines, 'ours against it, of the times', TIME)}"


def _counted(lines: Sequence[Line]) -> str:
    """Return how many comparisons ended in each way, losses first."""
    found = Counter(line["verdict"] for line in lines if line["verdict"] is not None)
    return ", ".join(f"{verdict} {found[verdict]}" for verdict in LOSSES_FIRST if found[verdict]) or "no comparison"


def _losses(cells: Sequence[Line], by: By) -> tuple[str, ...]:
    return tuple(
        f"Behind {line['name']}: {_loss_words(line, by)}." for line in cells if line["verdict"] == Verdict.BEHIND
    )


def _loss_words(line: Line, by: By) -> str:
    time = f"{line.get(WRITTEN + TIME) or three_digits(line[TIME])} x its time"
    return time if by == "time" or line[COST] is None else f"{three_digits(line[COST])} x its {COSTS[by]}, {time}"


def _glance_line(question: AskedQuestion, answered: Sequence[Line]) -> Line:
    found = Counter(line["verdict"] for line in answered)
    line: Line = {"question": question.title, "by": COSTS[question.by]}
    line |= {"ours": ", ".join(sorted(set(question.ours.values())))}
    line |= {str(verdict): found[verdict] for verdict in LOSSES_FIRST}
    behind = [one for one in answered if one["verdict"] == Verdict.BEHIND]
    worst = max(behind, key=lambda one: loss(one, question.by), default=None)
    return line | {"loss": MISSING if worst is None else f"{_loss_words(worst, question.by)} ({worst['name']})"}
