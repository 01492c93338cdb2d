import errno
import os
from pathlib import Path

import pytest

from symplectic_bench.spec.suite import SUITES, Scale, Suite, SuiteError, load_suite, suite_names

SMALL = """
name = "small"
title = "Small"
description = "For tests."
max_cells = 20
budget_s = 10
cell_timeout_s = 5

[defaults]
batch = 4
dtype = ["float32", "float64"]

[[block]]
problem = [{ name = "mlp", width = 8 }]
method = "dopri5"
rtol = [1e-3, 1e-9]
contenders = { ours = ["aca", "symplectic"], torchdiffeq = "backprop" }

[scale.smoke]
repeats = 1
[[scale.smoke.block]]
problem = [{ name = "mlp" }]
method = "rk4"
steps = 4
contenders = { ours = "aca" }

[scale.gpu.defaults]
device = "cuda"

[[target]]
point = 2
name = "lean"
cells = { contender = "ours", gradient = ["aca", "symplectic"], width = 8 }
measure = "memory_over_floor"
at_most = 1.03
"""


@pytest.fixture
def write(tmp_path):
    def write(text, name="small"):
        path = tmp_path / f"{name}.toml"
        path.write_text(text)
        return str(path)

    return write


def edited(old, new):
    assert SMALL.count(old) >= 1
    return SMALL.replace(old, new, 1)


def test_one_value_is_as_good_as_a_list(write):
    suite = load_suite(write(SMALL))
    assert suite.block[0].method == ["dopri5"]
    assert suite.block[0].contenders == {"ours": ["aca", "symplectic"], "torchdiffeq": ["backprop"]}


def test_atol_follows_rtol_without_rounding_errors(write):
    assert load_suite(write(SMALL)).block[0].accuracies == [(1e-3, 1e-5, None), (1e-9, 1e-11, None)]


def test_atol_may_be_given(write):
    suite = load_suite(write(edited("rtol = [1e-3, 1e-9]", "rtol = 1e-3\natol = 1e-4")))
    assert suite.block[0].accuracies == [(1e-3, 1e-4, None)]


def test_a_scale_may_replace_all_blocks(write):
    smoke = load_suite(write(SMALL)).at_scale(Scale.SMOKE)
    assert smoke.block[0].accuracies == [(None, None, 4)]
    assert smoke.repeats == 1
    assert smoke.cell_timeout_s == 5  # what it does not say stays


def test_a_scale_may_change_a_default_and_keep_the_others(write):
    gpu = load_suite(write(SMALL)).at_scale(Scale.GPU)
    assert gpu.defaults.device == ["cuda"]
    assert gpu.defaults.batch == [4]


def test_small_runs_have_a_name_of_their_own(write):
    suite = load_suite(write(SMALL))
    assert [suite.at_scale(scale).name for scale in suite.scales] == ["small-smoke", "small", "small-gpu"]
    with pytest.raises(SuiteError, match=r"no scale 'gpu-first'; it has smoke, cpu, gpu"):
        suite.at_scale(Scale.GPU_FIRST)


def test_a_target_is_read_with_its_cells_and_applies_at_every_scale(write):
    suite = load_suite(write(SMALL))
    (target,) = suite.target
    assert target.cells == {"contender": ["ours"], "gradient": ["aca", "symplectic"], "width": [8]}
    assert (target.measure, target.over, target.along, target.at_most) == ("memory_over_floor", None, None, 1.03)
    assert suite.at_scale(Scale.SMOKE).target == suite.target
    assert load_suite("quick").target == []


CLAIM = """
[[claim]]
point = 1
name = "it is lean"
[[claim.criterion]]
name = "ours"
cells = { contender = "ours" }
measure = "peak_tensor_bytes"
at_most = 1000
"""


@pytest.mark.parametrize("key", ["criterion", "trial"])
def test_the_criteria_of_a_claim_are_read_under_their_name_and_under_the_older_one(write, key):
    text = SMALL + CLAIM.replace("claim.criterion", f"claim.{key}")
    (claim,) = load_suite(write(text)).claim
    assert [(one.name, one.at_most) for one in claim.criterion] == [("ours", 1000)]
    with pytest.raises(SuiteError, match=rf"claim\[0\].{key}\[0\].measur: unknown key; did you mean 'measure'\?"):
        load_suite(write(text.replace('measure = "peak', 'measur = "peak')))


def test_a_claim_without_criteria_is_refused(write):
    with pytest.raises(SuiteError, match=r"claim\[0\].criterion: is missing"):
        load_suite(write(SMALL + CLAIM[: CLAIM.index("[[claim.criterion]]")]))


def test_a_target_is_a_claim_of_one_criterion(write):
    (target,) = load_suite(write(SMALL)).target
    assert (target.claim.point, target.claim.name, target.claim.criterion) == (2, "lean", [target])


def test_a_scale_that_the_file_does_not_have_is_refused(write):
    with pytest.raises(SuiteError, match=r"'small' has no scale 'smoke'; it has cpu$"):
        load_suite(write(SMALL[: SMALL.index("[scale.smoke]")])).at_scale(Scale.SMOKE)


def test_a_device_on_the_command_line_overrides_the_file(write):
    suite = load_suite(write(edited("rtol =", 'device = ["cpu", "cuda"]\nrtol ='))).on_device("cpu")
    assert suite.block[0].over(suite.defaults)["device"] == ["cpu"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("budget_s", "bugdet_s", r"small.toml: bugdet_s: unknown key; did you mean 'budget_s'\?"),
        ("budget_s = 10", "", r"small.toml: budget_s: is missing"),
        ("budget_s = 10", "budget_s = 10\ntrains = true", r"repeats have no effect if networks are trained"),
        ("budget_s = 10", "budget_s = 10\nevaluate = false", r"evaluate has no effect unless networks are trained"),
        ("method =", "methd =", r"block\[0\].methd: unknown key; did you mean 'method'\?"),
        ("batch = 4", "bach = 4", r"defaults.bach: unknown key; did you mean 'batch'\?"),
        (
            "budget_s = 10",
            "budget_s = 10\ncompares = 'colours'",
            r"compares: unknown 'colours' \(there are: gradients, methods, claims\)",
        ),
        ("repeats = 1", "repeat = 1", r"scale.smoke.repeat: unknown key; did you mean 'repeats'\?"),
        ("[scale.gpu.defaults]", "[scale.tpu.defaults]", r"scale.tpu.*unknown 'tpu'; .*there are: smoke, cpu, gpu"),
        (
            '"float32", "float64"',
            '"float16"',
            r"dtype\[0\]: unknown 'float16'; did you mean 'float64'\? \(there are: float32, float64\)",
        ),
        ("batch = 4", "batch = 0", r"defaults.batch\[0\]: must be at least 1; got 0"),
        ("batch = 4", "batch = true", r"defaults.batch\[0\]: must be a whole number; got True"),
        ("1e-9", "-1.0", r"block\[0\].rtol\[1\]: must be above 0; got -1.0"),
        ("1e-9", "inf", r"block\[0\].rtol\[1\]: .*finite number; got inf"),
        ("1e-9", "5e-324", r"block\[0\].rtol\[1\]: must be from 1e-100 to 1e100; got 5e-324"),
        ("1e-9", "1e308", r"block\[0\].rtol\[1\]: must be from 1e-100 to 1e100; got 1e\+308"),
        ("1e-9", "0.0", r"block\[0\].rtol\[1\]: must be above 0; got 0.0"),
        ("1e-9", "nan", r"block\[0\].rtol\[1\]: .*finite number; got nan|must be above 0; got nan"),
        ("rtol = [", "atol = 1e-320\nrtol = [", r"block\[0\].atol: must be from 1e-100 to 1e100; got 1e-320"),
        ("rtol = [", "atol_over_rtol = 1e200\nrtol = [", r"block\[0\].atol_over_rtol: must be from 1e-100"),
        ("batch = 4", f"batch = {2**63}", rf"defaults.batch\[0\]: .*equal to {2**63 - 1}; got {2**63}"),
        ("batch = 4", f"seed = {2**70}", rf"defaults.seed\[0\]: .*equal to {2**63 - 1}; got {2**70}"),
        ("batch = 4", f"seed = {-(2**70)}", r"defaults.seed\[0\]: must be at least 0; got -1180"),
        ("batch = 4", "threads = 100000", r"defaults.threads\[0\]: .*less than or equal to 1024; got 100000"),
        ("repeats = 1", f"repeats = {2**64}", rf"scale.smoke.repeats: .*equal to {2**63 - 1}; got {2**64}"),
        ("repeats = 1", "warmup = 1001", r"scale.smoke.warmup: .*less than or equal to 1000; got 1001"),
        ("max_cells = 20", f"max_cells = {2**64}", rf"max_cells: .*equal to {2**63 - 1}; got {2**64}"),
        ("max_cells = 20", "max_cells = 0", r"max_cells: must be at least 1; got 0"),
        ("max_cells = 20", "max_cells = 1.0", r"max_cells: must be a whole number; got 1.0"),
        ("budget_s = 10", "budget_s = -0.0", r"budget_s: must be above 0; got -0.0"),
        ("steps = 4", f"steps = {2**63}", rf"block\[0\].steps\[0\]: .*equal to {2**63 - 1}; got {2**63}"),
        (
            "width = 8 }]",
            f"width = {2**63} }}]",
            r"size 'width' of 'mlp' must be a finite number of 64 bits; got 922",
        ),
        ("width = 8 }]", f"width = {-(2**64)} }}]", r"size 'width' of 'mlp' must be a finite number of 64 bits; got -"),
        ("width = 8 }]", "width = true }]", r"size 'width' of 'mlp' must be a finite number or a string; got True"),
        ("max_cells = 20", "max_cells = 1" + "0" * 5000, r"small.toml: not TOML: .*4300 digits"),
        ("max_cells = 20", "a = " + "[" * 5000 + "]" * 5000, r"small.toml: not TOML: .*recursion"),
        ("rtol = [1e-3, 1e-9]", "rtol = 'tight'", r"block\[0\].rtol\[0\]: must be a number; got 'tight'"),
        ("max_cells = 20", "max_cells = 'many'", r"max_cells: must be a whole number; got 'many'$"),
        ("max_cells = 20", "max_cells = 20\ntrains = 'maybe'", r"trains: must be true or false; got 'maybe'"),
        ("rtol = [1e-3, 1e-9]", "rtol = []", r"block\[0\].rtol: must not be empty"),
        ("rtol = [1e-3, 1e-9]", "", r"block\[0\]: give rtol .* or steps"),
        ("rtol = [1e-3, 1e-9]", "rtol = 1e-3\nsteps = 3", r"block\[0\]: give rtol .* or steps"),
        ("rtol = [1e-3, 1e-9]", "steps = 3\natol = 1e-3", r"block\[0\]: .* have no effect with fixed steps"),
        ("rtol = [", "atol = 1.0\natol_over_rtol = 1.0\nrtol = [", r"block\[0\]: give atol or atol_over_rtol"),
        ('{ name = "mlp", width = 8 }', "{ width = 8 }", r"block\[0\].problem: each problem .* name"),
        ("width = 8", "width = [8]", r"size 'width' of 'mlp' must be a finite number or a string; got \[8\]"),
        ("width = 8", "width = 1" + "0" * 400, r"size 'width' of 'mlp' must be a finite number"),
        ("width = 8", "width = nan", r"size 'width' of 'mlp' must be a finite number"),
        ('name = "small"', 'name = "a/b"', r"small.toml: name: must be lower-case letters"),
        ("max_cells = 20", "max_cells = ", r"small.toml: not TOML"),
        ("at_most = 1.03", "at_mos = 1", r"target\[0\].at_mos: unknown key; did you mean 'at_most'\?"),
        ("at_most = 1.03", "", r"target\[0\]: give at_most, at_least or powers, one of the three"),
        ("at_most = 1.03", "at_most = 1\nat_least = 1", r"target\[0\]: give at_most, at_least or powers"),
        ("at_most = 1.03", "powers = { steps = 1 }", r"target\[0\]: powers and within belong together"),
        ("at_most = 1.03", "at_most = 1\nwithin = 0.1", r"target\[0\]: powers and within belong together"),
        (
            "at_most = 1.03",
            "powers = { steps = 1 }\nwithin = 0.1\nover = 'ours aca'",
            r"target\[0\]: powers already name the axes and apply to the measure itself: remove over, along and change",
        ),
        (
            "at_most = 1.03",
            "powers = { steps = -1 }\nwithin = 0.1",
            r"target\[0\].powers.steps: must be at least 0; got -1",
        ),
        ("at_most = 1.03", "at_most = 0", r"target\[0\].at_most: must be above 0; got 0"),
        ("at_most = 1.03", "at_most = 1\nalong = 'steps'", r"target\[0\]: along and change belong together"),
        ("at_most = 1.03", "at_most = 1\nchange = 'exponent'", r"target\[0\]: along and change belong together"),
        (
            "at_most = 1.03",
            "at_most = 1\nover = 'ours aca'\nalong = 'steps'\nchange = 'exponent'",
            r"target\[0\]: give over .* or along .*, not both",
        ),
        (
            "at_most = 1.03",
            "at_most = 1\nalong = 'width'\nchange = 'exponent'",
            r"target\[0\]: along 'width' compares several .* only 8",
        ),
        (
            'measure = "memory_over_floor"',
            'measure = "loss"',
            r"target\[0\].measure: unknown 'loss'; .*there are: time_over_floor,",
        ),
        (
            '{ contender = "ours", gradient',
            "{ colour = [[1]], gradient",
            r"toml: target\[0\].cells.colour\[0\]: must be a number or a string; got \[1\]$",
        ),
        ('{ contender = "ours", gradient', "{ colour = [], gradient", r"target\[0\].cells.colour: must not be empty"),
    ],
)
def test_a_mistake_is_named_with_file_key_and_what_is_allowed(write, old, new, message):
    with pytest.raises(SuiteError, match=message):
        load_suite(write(edited(old, new)))


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", "title = 'Gr\u00f6\u00dfe'".encode("latin-1"), "name = 'x'".encode("utf-16"), b"\x00" * 10],
    ids=["empty", "no text", "latin-1", "utf-16", "zeros"],
)
def test_a_file_that_is_no_suite_is_refused(tmp_path, content):
    (tmp_path / "small.toml").write_bytes(content)
    with pytest.raises(SuiteError, match=r"^small\.toml: (not TOML|\w+: is missing)"):
        load_suite(str(tmp_path / "small.toml"))


def a_folder(path):
    path.mkdir()


def a_looping_link(path):
    path.symlink_to(path)


def a_dead_link(path):
    path.symlink_to("nowhere")


@pytest.mark.parametrize("make", [a_folder, a_looping_link, a_dead_link])
def test_what_is_no_file_is_no_suite(tmp_path, make):
    make(tmp_path / "small.toml")
    with pytest.raises(SuiteError, match="no suite file"):
        load_suite(str(tmp_path / "small.toml"))


@pytest.mark.parametrize("name", ["x" * 300, "x" * 300 + ".toml", "x/" * 3000 + "x.toml", "a\0b", "a\0b.toml", "", "/"])
def test_a_name_that_no_file_can_have_is_no_suite(name):
    with pytest.raises(SuiteError, match="no suite"):
        load_suite(name)


def test_a_file_that_may_not_be_read_is_refused(write, monkeypatch):
    path = write(SMALL)

    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(SuiteError, match=r"small\.toml cannot be read: Permission denied"):
        load_suite(path)


def test_all_mistakes_are_named_at_once(write):
    with pytest.raises(SuiteError) as error:
        load_suite(write(edited("budget_s", "bugdet_s").replace("title =", "titel =")))
    assert len(str(error.value).splitlines()) == 4  # two unknown keys, two missing


def test_an_unknown_suite_is_answered_with_the_nearest():
    with pytest.raises(SuiteError, match=r"no suite 'quikc'; did you mean 'quick'\?"):
        load_suite("quikc")
    with pytest.raises(SuiteError, match=r"no suite file 'nowhere.toml'"):
        load_suite("nowhere.toml")


@pytest.mark.parametrize("name", suite_names())
def test_every_suite_of_ours_is_valid_at_every_scale_it_has(name):
    suite = load_suite(name)
    for scale in {Scale.CPU, *suite.scale}:
        assert isinstance(suite.at_scale(scale), Suite)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("my_suite.toml", "my_suite"),
        ("My Suite (v2).toml", "my-suite-v2"),
        ("sub/deep/Größe.toml", "gr-e"),
        ("no_suffix", "no_suffix"),
        ("x.conf", "x"),
        ("-_.toml", "suite-68e82eaf"),
        ("实验.toml", "suite-5e42855d"),
        ("baseline.toml", "suite-8ba8496a"),
        (f"{'long' * 50}.toml", "long" * 25),
    ],
)
@pytest.mark.parametrize("copied", [True, False], ids=["copy of quick", "without a name"])
def test_a_file_of_any_name_and_place_is_a_suite(tmp_path, file, name, copied):
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    text = (SUITES / "quick.toml").read_text() if copied else edited('name = "small"', "")
    path.write_text(text)
    assert load_suite(str(path)).name == name


def test_a_name_in_the_file_is_kept_whatever_the_file_is_called(tmp_path, monkeypatch):
    (tmp_path / "other.toml").write_text(SMALL)
    monkeypatch.chdir(tmp_path)
    assert load_suite("other.toml").name == "small"
    (tmp_path / "quick").write_text(SMALL)
    assert load_suite("quick").name == "quick"  # the name of a suite of ours comes first
    assert load_suite("./quick").name == "small"
    assert load_suite(str(SUITES / "quick.toml")).name == "quick"


def test_an_unknown_device_is_refused_before_anything_runs():
    with pytest.raises(SuiteError, match=r"--device foo: unknown"):
        load_suite("quick").on_device("foo")


class TestQuestions:
    ASKED = 'contenders = { ours = ["aca", "symplectic"], torchdiffeq = "backprop" }'

    def asking(self, write, question):
        return load_suite(write(edited(self.ASKED, f"{self.ASKED}\nquestion = [{question}]")))

    def test_a_block_may_answer_several(self, write):
        suite = self.asking(write, '{ title = "Fastest?" }, { title = "Leanest?", by = "memory", ours = "ours aca" }')
        first, second = suite.block[0].question
        assert (first.by, first.ours) == ("time", "ours symplectic") and (second.by, second.ours) == (
            "memory",
            "ours aca",
        )

    @pytest.mark.parametrize(
        ("question", "complaint"),
        [
            ('{ title = "A?", by = "tine" }', "unknown 'tine'; did you mean 'time'"),
            ('{ title = "A?", our = "ours aca" }', "question[0].our: unknown key; did you mean 'ours'"),
            ('{ title = "A?", ours = "ours acca" }', "not among the block's contenders; did you mean 'ours aca'"),
            ('{ by = "time" }', "title: is missing"),
            ('{ title = "A?" }, { title = "A?", by = "memory" }', "is decided by 'time' and by 'memory'"),
        ],
    )
    def test_a_wrong_question_says_what_is_wrong(self, question, complaint, write):
        with pytest.raises(SuiteError) as caught:
            self.asking(write, question)
        assert complaint in str(caught.value)

    def test_suites_that_train_have_none(self, write):
        with pytest.raises(SuiteError, match="question has no effect if networks are trained"):
            load_suite(write(edited(self.ASKED, f'{self.ASKED}\nquestion = [{{ title = "A?" }}]').replace(
                "budget_s = 10", "budget_s = 10\ntrains = true").replace("repeats = 1\n", "")))  # fmt: skip
