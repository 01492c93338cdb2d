"""The tables of questions: their order, captions and notes."""

from symplectic_bench.analysis.summary import summarize
from symplectic_bench.report.tables import all_tables
from symplectic_bench.report.typesetting import to_csv, to_latex, to_markdown
from tests.symplectic_bench.analysis.test_questions import asked, rows

WHERE = "Measured here."


def tables(found, *by):
    return all_tables(summarize(found), WHERE, (), [asked(one, found) for one in by])


def test_a_question_is_a_table_with_our_losses_first():
    glance, table = tables(rows(), "time")
    assert (table.name, table.title) == ("question-1", "1. Which?") and glance.name == "questions"
    assert "behind 3, level 1, first 1" in table.caption and "Holm's correction" in table.caption
    assert "The smallest difference that this run would have seen" in table.caption
    (section,) = table.sections
    assert section.heading.startswith("ours symplectic: behind 3, level 1, first 1 (mlp(")
    assert [line[0] for line in section.lines[:3]] == ["ours symplectic", "diffrax backprop", "torchdiffeq backprop"]
    assert section.notes[0].startswith("Behind diffrax backprop: 3.98 (") and "x its time" in section.notes[0]


def test_a_loss_in_memory_names_both_costs():
    _, table = tables(rows(), "memory")
    (note,) = [note for note in table.sections[0].notes if "torchdiffeq backprop" in note]
    assert "2.00 x its peak of live tensors, 2.0" in note and "x its time" in note
    assert "our cost over its" in table.headings and "our cost over its" not in tables(rows(), "time")[1].headings


def test_the_questions_at_a_glance_count_verdicts_and_name_the_greatest_loss():
    glance, *_ = tables(rows(), "time", "memory", "error")
    (by_time, by_memory, _) = glance.sections[0].lines
    headings = glance.headings
    assert (
        by_time[headings.index("behind")] == "3"
        and by_time[headings.index("first")] == "1"
        and by_memory[headings.index("a trade")] == "2"
    )
    assert by_time[-1].endswith("(diffrax backprop)") and by_memory[-1].endswith("(torchdiffeq backprop)")


def test_a_question_without_enough_rounds_says_so():
    _, table = tables(rows(rounds=3), "time")
    assert "Verdicts need ten paired rounds or more." in table.caption


def test_groups_that_no_question_asks_about_are_in_the_table_of_all_gradients():
    found = rows()
    names = [table.name for table in all_tables(summarize([*found, *rows(seed=1)]), WHERE, (), [asked("time", found)])]
    assert names == ["questions", "question-1", "gradients"]
    assert [table.name for table in tables(found, "time")] == ["questions", "question-1"]


def test_every_form_of_every_table_is_complete():
    for table in tables(rows(), "time", "memory", "error"):
        assert table.title in to_markdown(table) and r"\end{table}" in to_latex(table)
        assert len(to_csv(table).splitlines()) == 1 + len(table.data)
        assert all(len(line) == len(table.headings) for section in table.sections for line in section.lines)
