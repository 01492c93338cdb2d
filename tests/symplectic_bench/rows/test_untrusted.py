"""Untrusted files: they are read correctly or refused clearly; no crash, no wrong table, no code executed."""

import ast
import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symplectic_bench.analysis.baseline import Baseline, UnfitForBaseline, cells_of, lines_of_rows, read_baseline
from symplectic_bench.analysis.overview import overview
from symplectic_bench.analysis.regression import Kind, compare
from symplectic_bench.analysis.summary import summarize
from symplectic_bench.report.tables import all_tables
from symplectic_bench.report.typesetting import Section, Table, to_latex, to_markdown
from symplectic_bench.rows.record import Measurement, UnreadableRow
from symplectic_bench.rows.store import read_rows
from symplectic_bench.spec.expansion import Vocabulary, expand
from symplectic_bench.spec.suite import SUITES, Scale, SuiteError, load_suite
from tests.clone import ROOT
from tests.symplectic_bench.sample_rows import a_row, group

# Of each kind. In CI the draws are the same every time; nightly they are new ones.
MANY = settings(max_examples=5000)
SOME = settings(max_examples=200)

GOOD = [json.dumps(row.to_json()) for row in group()]

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.just(10**400)
    | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)


@st.composite
def mutated_rows(draw):
    """Draw a row with changed values, keys or bytes."""
    row = json.loads(draw(st.sampled_from(GOOD)))
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["value", "number", "drop", "add"]))
        key = draw(st.sampled_from(sorted(row))) if row else "schema"
        if kind == "value":
            row[key] = draw(JSON)
        elif kind == "number" and isinstance(row.get(key), int | float):
            row[key] = draw(st.sampled_from([-1, 0, 1, 1e308, -1e308, 2**62, 0.1, "NaN", "Infinity"]))
        elif kind == "drop":
            row.pop(key, None)
        else:
            row[draw(st.text(max_size=6))] = draw(JSON)
    text = json.dumps(row).encode()
    return flipped(draw, text) if draw(st.booleans()) else text


def flipped(draw, text: bytes) -> bytes:
    """Cut, or with a few bytes of it others."""
    if draw(st.booleans()):
        return text[: draw(st.integers(0, len(text)))]
    changed = bytearray(text)
    for _ in range(draw(st.integers(1, 4))):
        changed[draw(st.integers(0, len(changed) - 1))] = draw(st.integers(0, 255))
    return bytes(changed)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("rows") / "rows.jsonl"


def read(file, line):
    file.write_bytes(b"\n".join([GOOD[0].encode(), line, GOOD[1].encode()]) + b"\n")
    return read_rows(file)


@MANY
@given(line=mutated_rows())
def test_a_mutated_row_is_refused_or_read_as_written(file, line):
    try:
        found = read(file, line)
    except UnreadableRow as why:
        assert "row" in str(why) and len(str(why)) < 1000
        return
    assert {json.loads(good)["cell_id"] for good in GOOD[:2]} <= {row.cell_id for row in found.rows}
    for row in found.rows:
        assert (row.cell.id, row.cell.group_id) == (row.cell_id, row.group_id)
        json.dumps(row.to_json(), allow_nan=False).encode()  # what was read can be written


@SOME
@given(lines=st.lists(mutated_rows(), min_size=4, max_size=8))
def test_tables_of_mutated_rows_are_whole(file, lines):
    rows = {row.cell_id: row for row in group()}
    for line in lines:
        try:
            rows |= {row.cell_id: row for row in read(file, line).rows}
        except UnreadableRow:
            continue
    frame = summarize(list(rows.values()))
    overview(frame)
    tables = all_tables(frame, "somewhere", [])
    assert tables
    for table in tables:
        sections = [section for section in to_markdown(table).split("\n\n") if section.startswith("|")]
        assert sections
        for section in sections:
            assert len({columns(line) for line in section.splitlines()}) == 1
        rows = [row for row in to_latex(table).splitlines() if r" \\" in row and "multicolumn" not in row]
        assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(table.headings) - 1}


def columns(line: str) -> int:
    return line.replace("\\\\", "").replace("\\|", "").count("|")


TEXT = (SUITES / "quick.toml").read_text()
WORDS = st.sampled_from([
    "", "name", "=", "[", "]", "{", "}", '"', "'", "\n", "[[block]]", "-1", "0", "1e999", "nan", "true", '"../../x"',
    '"/etc/passwd"', "max_cells", "rtol", "steps", "contenders", "scale", "problem", "\x00", "é", "9" * 400,
    "1979-05-27",
])  # fmt: skip


@st.composite
def mutated_suites(draw):
    """Draw the text with a few pieces cut out, doubled or replaced."""
    text = TEXT
    for _ in range(draw(st.integers(1, 4))):
        first = draw(st.integers(0, len(text)))
        last = draw(st.integers(first, min(len(text), first + 40)))
        text = text[:first] + draw(WORDS | st.just(text[first:last] * 2)) + text[last:]
    return text.encode(errors="surrogatepass")


VOCABULARY = Vocabulary(
    {"mlp": {"state": 8, "width": 64, "layers": 2, "outputs": 1, "end": 4.0}, "flow": {"data": "digits", "width": 64}},
    ("dopri5", "rk4"),
    lambda cell: None,
)


@MANY
@given(text=mutated_suites())
def test_a_mutated_suite_is_refused_or_read(tmp_path_factory, text):
    file = tmp_path_factory.getbasetemp() / "quick.toml"
    file.write_bytes(text)
    named = [file.name]
    try:
        suite = load_suite(str(file))
        named.append(suite.name)
        for scale in Scale:
            scaled = suite.at_scale(scale)
            assert Path("results", scaled.name).resolve().parent == Path("results").resolve()
            cells = expand(scaled, VOCABULARY)
            assert 0 < len(cells) <= scaled.max_cells
    except SuiteError as why:
        assert any(name in str(why) for name in named)


SOUND = Baseline(cells_of(lines_of_rows(group())))


@st.composite
def mutated_baselines(draw):
    """Draw a baseline with a few bytes changed, or with values changed that leave it JSON."""
    lines = SOUND.text().splitlines()
    if draw(st.booleans()):
        return flipped(draw, SOUND.text().encode())
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(1, len(lines) - 1))
        cell = json.loads(lines[place])
        name = draw(st.sampled_from(sorted(cell)))
        cell[name] = draw(st.sampled_from(["another", "ok", None, 0, 1, 7, 0.5, 1e-9, "NaN", -1, True]))
        lines[place] = json.dumps(cell)
    return "\n".join(lines).encode()


@SOME
@given(text=mutated_baselines())
def test_a_mutated_baseline_is_refused_or_compared_as_it_stands(tmp_path_factory, text):
    file = tmp_path_factory.getbasetemp() / "small.jsonl"
    file.write_bytes(text)
    try:
        baseline = read_baseline(file)
    except UnfitForBaseline as why:
        assert "small.jsonl is not a baseline" in str(why)
        return
    assert Baseline(baseline.cells, baseline.tolerances, baseline.time).text() == baseline.text()
    found = compare(group(), baseline)
    lost = [cell for cell in baseline.cells if cell["cell_id"] not in {row.cell_id for row in group()}]
    assert [(x.kind, x.cell) for x in found if x.measured == "no row"] == [
        (Kind.REGRESSION, cell["cell"]) for cell in lost
    ]
    # Every finding is about a value that the baseline has and that is not what was measured.
    for finding in found:
        assert finding.measured != finding.baseline
        assert any(cell["cell"] == finding.cell and cell[finding.metric] == finding.baseline for cell in baseline.cells)
    if list(baseline.cells) == list(SOUND.cells):
        assert found == []


@pytest.mark.parametrize("name", ["../elsewhere", "/tmp/x", "a/b", "..", "", "baseline", "A", "a b"])
def test_a_suites_name_cannot_point_outside_the_results(tmp_path, name):
    file = tmp_path / "quick.toml"
    file.write_text(TEXT.replace('name = "quick"', f"name = {json.dumps(name)}"))
    with pytest.raises(SuiteError, match="name"):
        load_suite(str(file))


def test_a_row_with_a_changed_cell_is_refused():
    row = a_row().to_json()
    with pytest.raises(UnreadableRow, match="ids are not those of its cell"):
        Measurement.from_json(row | {"rtol": 1e-3})


@pytest.mark.parametrize(
    "changes",
    [
        {"environment": "../../elsewhere"},
        {"losses": [1.0, 2.0], "total_samples_s": [1.0]},
        {"losses": [1.0, 2.0], "f_calls_samples": [1]},
    ],
)
def test_contradictory_values_are_refused(changes):
    with pytest.raises(UnreadableRow):
        Measurement.from_json(a_row().to_json() | changes)


@pytest.mark.parametrize("value", ["12", True, [1], -1, 10**400, 1.5])
def test_a_count_of_the_wrong_type_is_refused(value):
    with pytest.raises(UnreadableRow, match="f_calls_forward"):
        Measurement.from_json(a_row().to_json() | {"f_calls_forward": value})


MARKUP = "a|b\\|c <script>x</script> [l](http://x) ![i](y) `c` *e* $x$ \\input{f} 100% #1 ~ ^ {b} & \n# d"


class TestEscapes:
    def table(self):
        sections = (Section(MARKUP, ((MARKUP, "1"),), (MARKUP,)),)
        return Table("t", "Title", MARKUP, MARKUP, ("h", "n"), sections, ())

    def test_markdown_is_text_in_its_cell(self):
        text = to_markdown(self.table())
        rows = [line for line in text.splitlines() if line.startswith("|")]
        assert {columns(line) for line in rows} == {3}
        for active in ("<script", "](", "`c`"):
            bare = text.replace("\\\\", "")
            places = [i for i in range(len(bare)) if bare.startswith(active, i)]
            assert all(bare[i - 1] == "\\" for i in places), active
        assert "\n# d" not in text

    def test_latex_is_text(self):
        text = to_latex(self.table())
        assert "\\input" not in text.replace("\\textbackslash{}input", "")
        for sign in ("$<$", "$>$", "$|$"):
            text = text.replace(sign, "")
        assert not re.search(r"(?<!\\)[$%#_]", text)

    def test_text_of_a_suite_is_not_html(self):
        from symplectic_bench.report.page import Chapter, page

        suite = load_suite("quick").model_copy(update={"title": "<script>t", "description": "<img src=x>"})
        text = page(Chapter(suite, "<b>where</b>", [], []), "x", "plots")
        assert "<script" not in text.replace("\\<", "") and "<img" not in text.replace("\\<", "")


def test_no_module_of_the_suite_loads_a_pickle():
    """Arrays are read without objects and tensors as weights alone; no module that unpickles is imported."""
    loaders = set()
    for path in sorted((ROOT / "benchmarks").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                assert not {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"} & set(names), (
                    path
                )
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "load":
                given_ = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
                of = getattr(node.func.value, "id", None)
                loaders.add(of)
                if of == "np":
                    assert given_.get("allow_pickle") is False, path
                if of == "torch":
                    assert given_.get("weights_only") is True, path
    assert {"np", "torch"} <= loaders  # else nothing was looked at
