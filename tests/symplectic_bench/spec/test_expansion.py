import tracemalloc

import pytest

from symplectic_bench.run.sweep import cells_of_suite, load_vocabulary
from symplectic_bench.spec.expansion import NothingLeft, Vocabulary, asked_questions, expand, narrow, parse_only
from symplectic_bench.spec.suite import Scale, Suite, SuiteError, load_suite, suite_names
from tests.symplectic_bench.sample_rows import OURS, PEERS

GRADIENTS = {"ours": OURS, "torchdiffeq": PEERS}


def decline(cell):
    known = GRADIENTS.get(cell.contender, ())
    return None if cell.gradient in known else f"{cell.contender} has no gradient {cell.gradient!r}"


VOCABULARY = Vocabulary(
    problems={
        "mlp": {"state": 8, "width": 64, "layers": 2},
        "flow": {"data": "digits", "width": 64, "end": 1.0},
        "van_der_pol": {"mu": 1.0},
    },
    methods=("dopri5", "rk4"),
    decline=decline,
)


def suite(*blocks, **changes):
    fields = {"name": "small", "title": "Small", "description": "For tests.", "max_cells": 100}
    fields |= {"budget_s": 1, "cell_timeout_s": 1, "block": list(blocks)}
    return Suite.model_validate(fields | changes)


def block(**changes):
    usual = {"problem": [{"name": "mlp"}], "method": "dopri5", "rtol": 1e-3, "contenders": {"ours": ["aca"]}}
    return {key: value for key, value in (usual | changes).items() if value is not None}


def cells(*blocks, **changes):
    return expand(suite(*blocks, **changes), VOCABULARY)


def test_axes_multiply_in_a_fixed_order_with_the_gradient_fastest():
    found = cells(block(rtol=[1e-3, 1e-6], contenders={"ours": ["aca", "stages"], "torchdiffeq": ["backprop"]}))
    assert [(c.rtol, c.contender, c.gradient) for c in found] == [
        (1e-3, "ours", "aca"),
        (1e-3, "ours", "stages"),
        (1e-3, "torchdiffeq", "backprop"),
        (1e-6, "ours", "aca"),
        (1e-6, "ours", "stages"),
        (1e-6, "torchdiffeq", "backprop"),
    ]


def test_every_shared_axis_multiplies():
    axes = {"batch": [1, 2], "dtype": ["float32", "float64"], "device": ["cpu"], "threads": [1, 2], "seed": [0, 1]}
    assert len(cells(block(**axes))) == 16
    assert len(cells(block(), defaults=axes)) == 16


def test_a_block_overrides_the_defaults():
    (cell,) = cells(block(batch=3), defaults={"batch": 5, "seed": 7})
    assert (cell.batch, cell.seed, cell.dtype) == (3, 7, "float64")


def test_fixed_steps_take_the_place_of_tolerances():
    (cell,) = cells(block(rtol=None, steps=12))
    assert (cell.rtol, cell.atol, cell.steps) == (None, None, 12)


def test_sizes_not_given_are_at_their_defaults_so_that_two_spellings_are_one_cell():
    (short,) = cells(block())
    (long,) = cells(block(problem=[{"name": "mlp", "width": 64, "layers": 2, "state": 8}]))
    assert short.id == long.id
    assert short.sizes == (("layers", 2), ("state", 8), ("width", 64))


def test_an_integer_stands_for_a_real_size():
    (cell,) = cells(block(problem=[{"name": "van_der_pol", "mu": 3}]))
    assert repr(cell.sizes_dict["mu"]) == "3.0"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"problem": [{"name": "mpl"}]}, r"block\[0\].problem: unknown 'mpl'; did you mean 'mlp'\?"),
        ({"problem": [{"name": "mlp", "widht": 3}]}, r"'mlp' has no size 'widht'; did you mean 'width'\?"),
        (
            {"problem": [{"name": "mlp", "width": 3.5}]},
            r"size 'width' of 'mlp' must have the type of its default, 64; got 3.5",
        ),
        (
            {"problem": [{"name": "flow", "data": 3}]},
            r"size 'data' of 'flow' must have the type of its default, 'digits'; got 3",
        ),
        ({"problem": [{"name": "mlp", "width": 0}]}, r"size 'width' of 'mlp' must be at least 1; got 0"),
        ({"problem": [{"name": "mlp", "width": -3}]}, r"size 'width' of 'mlp' must be at least 1; got -3"),
        ({"problem": [{"name": "flow", "end": 0}]}, r"size 'end' of 'flow' must be at least 1e-100; got 0"),
        ({"problem": [{"name": "flow", "end": -1.0}]}, r"size 'end' of 'flow' must be at least 1e-100; got -1.0"),
        ({"problem": [{"name": "flow", "end": 5e-324}]}, r"size 'end' of 'flow' must be at least 1e-100; got 5e-324"),
        ({"method": "dorpi5"}, r"block\[0\].method: unknown 'dorpi5'; did you mean 'dopri5'\?"),
        ({"contenders": {"ours": ["acca"]}}, r"contenders: ours acca on mlp.*has no gradient 'acca'"),
        ({"contenders": {"torchdiffeq": ["aca"]}}, r"contenders: torchdiffeq aca on .*no gradient 'aca'"),
    ],
)
def test_what_cannot_be_measured_is_named(changes, message):
    with pytest.raises(SuiteError, match=message):
        cells(block(**changes))


def test_sizes_of_a_users_own_problem_may_have_any_value():
    own = Vocabulary({"mine:sign": {"sign": 1, "end": 1.0}}, ("dopri5",), lambda cell: None)
    (cell,) = expand(suite(block(problem=[{"name": "mine:sign", "sign": -1, "end": 0}])), own)
    assert cell.sizes_dict == {"sign": -1, "end": 0.0}


@pytest.mark.parametrize("data", ["", "digit", "../../x", "a\0b", "x" * 5000])
def test_data_that_there_is_not_is_refused(data):
    flow = suite(block(problem=[{"name": "flow", "data": data}], contenders={"ours": ["symplectic"]}))
    with pytest.raises(SuiteError, match=r"there is no data .*breast_cancer"):
        expand(flow, load_vocabulary())


def test_a_cell_in_two_blocks_is_an_error():
    with pytest.raises(SuiteError, match=r"two blocks contain the same cell: mlp\(.*, ours aca"):
        cells(block(), block(rtol=[1e-6, 1e-3]))


def test_more_cells_than_declared_are_an_error():
    with pytest.raises(SuiteError, match="more cells than its max_cells = 1: shorten an axis, or raise max_cells"):
        cells(block(rtol=[1e-3, 1e-6]), max_cells=1)
    assert len(cells(block(rtol=[1e-3, 1e-6]), max_cells=2)) == 2


HUNDRED = list(range(1, 101))


@pytest.mark.parametrize(
    "blocks",
    [
        [
            block(
                batch=HUNDRED,
                threads=HUNDRED,
                seed=HUNDRED,
                dtype=["float32", "float64"],
                rtol=[n / 1000 for n in range(1, 301)],
            )
        ],
        [block(problem=[{"name": "mlp", "width": width} for width in HUNDRED], batch=HUNDRED, seed=HUNDRED)],
        [block(method=["dopri5", "rk4"], rtol=None, steps=HUNDRED, batch=HUNDRED, seed=HUNDRED, threads=HUNDRED)],
        [block(contenders={"ours": list(OURS), "torchdiffeq": list(PEERS)}, seed=list(range(10_000)))],
        [block(seed=seed) for seed in range(1000)],
    ],
    ids=["axes", "problems", "steps", "contenders", "blocks"],
)
def test_expansion_stops_at_the_first_cell_too_many(blocks):
    """However many there would be: the first has 600 million."""
    tried = []
    counting = Vocabulary(VOCABULARY.problems, VOCABULARY.methods, tried.append)  # None: no reason to decline
    big = suite(*blocks, max_cells=50)
    tracemalloc.start()
    try:
        with pytest.raises(SuiteError, match="max_cells = 50"):
            expand(big, counting)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(tried) == 51
    assert peak_bytes < 2_000_000  # 51 cells take 60 kB, lists of the axes' values 500 kB; ten thousand cells 10 MB


QUICK = load_suite("quick")


def test_quick_compares_nine_ways_within_sixty_cells():
    found = expand(QUICK, VOCABULARY)
    assert len(found) == 60
    assert len({(c.contender, c.gradient) for c in found}) == 9
    assert {c.sizes_dict["data"] for c in found if c.problem == "flow"} == {"digits", "breast_cancer", "wine"}


@pytest.mark.parametrize(
    ("name", "scale"), [(name, scale) for name in suite_names() for scale in load_suite(name).scales]
)
def test_every_suite_expands_at_every_scale_that_it_has(name, scale):
    cells = cells_of_suite(load_suite(name).at_scale(scale))
    assert {cell.device for cell in cells} == {"cuda" if scale is Scale.GPU else "cpu"}


@pytest.mark.parametrize(("name", "most_s"), [("quick", 240), ("performance", 480)])
def test_on_a_card_sizes_are_worth_one_and_some_rows_are_in_bf16(name, most_s):
    suite = load_suite(name).at_scale(Scale.GPU)
    assert suite.budget_s <= most_s
    cells = cells_of_suite(suite)
    assert len(cells) <= suite.max_cells
    assert max(cell.sizes_dict.get("width", 0) for cell in cells) == 4096
    low = [cell for cell in cells if cell.problem == "mlp_bf16"]
    assert low and {cell.dtype for cell in low} == {"float32"}  # the state
    assert {("ours", "symplectic"), ("ours", "backprop"), ("torchdiffeq", "backprop")} <= {
        (cell.contender, cell.gradient) for cell in low
    }


def test_quick_on_a_card_has_large_batches_and_the_flow_of_a_published_table():
    cells = cells_of_suite(QUICK.at_scale(Scale.GPU))
    assert max(cell.batch for cell in cells) == 8192
    (sizes,) = {cell.sizes for cell in cells if cell.problem == "flow"}
    published = {"data": "synthetic-bsds300", "width": 1260, "layers": 3, "nonlinearity": "tanh"}
    assert published.items() <= dict(sizes).items()


def test_the_smoke_block_of_quick_has_outputs_in_steps_a_tuple_times_and_a_second_method():
    found = cells_of_suite(QUICK.at_scale(Scale.SMOKE))
    assert len(found) == 25
    assert {c.method for c in found} == {"dopri5", "bosh3", "tsit5"}
    assert "regularized" in {c.problem for c in found}


@pytest.mark.parametrize(
    ("only", "count"),
    [
        ([], 60),
        (["problem=mlp"], 27),
        (["gradient=aca"], 7),
        (["gradient=aca,symplectic"], 14),
        (["gradient=aca", "gradient=symplectic"], 14),
        (["problem=mlp", "gradient=symplectic,aca", "rtol=1e-3"], 2),
        (["rtol=0.001"], 9),
        (["contender=torchdiffeq"], 18),
        (["data=wine"], 8),
        (["layers=2"], 27),
        (["batch=64"], 9),
    ],
)
def test_any_axis_narrows_a_suite_and_so_do_sizes(only, count):
    assert len(narrow(expand(QUICK, VOCABULARY), parse_only(only))) == count


def test_narrowing_to_nothing_says_what_there_is():
    everything = expand(QUICK, VOCABULARY)
    with pytest.raises(NothingLeft, match=r"gradient=symplctic: no cell has it; did you mean 'symplectic'\?"):
        narrow(everything, parse_only(["gradient=aca,symplctic"]))
    with pytest.raises(NothingLeft, match="data=wine problem=mlp: no cell has all of this"):
        narrow(everything, parse_only(["data=wine", "problem=mlp"]))


def test_an_axis_that_there_is_not_is_bad_usage():
    with pytest.raises(SuiteError, match=r"--only gradeint=...: no such axis; did you mean 'gradient'\?"):
        narrow(expand(QUICK, VOCABULARY), parse_only(["gradeint=aca"]))


@pytest.mark.parametrize("wish", ["aca", "gradient=", "=aca", "gradient=,"])
def test_a_wish_of_another_form_is_bad_usage(wish):
    with pytest.raises(SuiteError, match=r"AXIS=VALUE\[,VALUE\]"):
        parse_only([wish])


@pytest.mark.parametrize("name", suite_names())
def test_every_suite_of_ours_asks_only_for_what_there_is(name):
    for scale in (Scale.CPU, Scale.SMOKE):
        assert expand(load_suite(name).at_scale(scale), load_vocabulary())


def test_a_question_has_the_groups_of_all_its_blocks():
    ours = {"contenders": {"ours": ["aca", "symplectic"]}}
    by_both = [{"title": "Fastest?", "ours": "ours aca"}, {"title": "Leanest?", "by": "memory"}]
    found = suite(
        block(rtol=[1e-3, 1e-6], **ours, question=[{"title": "Fastest?"}]),
        block(rtol=1e-4),
        block(rtol=1e-5, **ours, question=by_both),
    )
    fastest, leanest = asked_questions(found, VOCABULARY)
    assert list(fastest.ours.values()) == ["ours symplectic", "ours symplectic", "ours aca"]
    assert list(leanest.ours) == list(fastest.ours)[2:] and leanest.by == "memory"
