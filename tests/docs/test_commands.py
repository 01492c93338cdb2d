"""The command lines of README and docs are ones that the commands take."""

import configparser
import importlib.util
import re
import shlex
import tomllib
from itertools import pairwise

import pytest
from typer.main import get_command

from symplectic_bench.commands.app import HELP, app
from symplectic_bench.paper.experiments import EXPERIMENTS
from symplectic_bench.spec.suite import suite_names
from tests.clone import ROOT
from tests.docs.pages import LINKED, code_spans, fenced_blocks, indented_blocks

COMMANDS = get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]
CONFIG = configparser.ConfigParser()
CONFIG.read(ROOT / "tox.ini")
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

OF_OTHERS = {"dask", "git", "torchrun", "cat", "symplectic-bench", "python", "pytest", "tox"}
"""The programs that pages call; of the last four the arguments are checked."""


def command_lines(page):
    """Return the commands in a page's blocks and spans."""
    blocks = [b.text for b in (*indented_blocks(page), *fenced_blocks(page)) if b.language in ("", "sh", "yaml")]
    lines = [re.sub(r"^\s*- run: |^\s*run: ", "", line) for text in blocks for line in text.splitlines()]
    spans = [span for span in code_spans(page) if " " in span]
    return [
        words
        for line in [*lines, *spans]
        for part in re.split(r"&&| > \S+| >> \S+", line.partition("  #")[0].partition(" # ")[0])
        if (words := words_of(part)) and words[0] in OF_OTHERS
    ]


def words_of(line):
    """Return a command's words without the variables set before it, [] if it is none."""
    try:
        words = shlex.split(line)
    except ValueError:
        return []
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    return words


def check(words):
    """Raise AssertionError if a program would refuse these arguments."""
    match words:
        case ["symplectic-bench"] | ["python", "-m", "symplectic_bench" | "benchmarks"]:
            pass
        case ["symplectic-bench", name, *rest] | ["python", "-m", "symplectic_bench" | "benchmarks", name, *rest]:
            if name != "...":
                check_suite_command(name, rest)
        case ["python", "-m", "tox", *rest] | ["tox", *rest]:
            check_environments(rest)
        case ["python", "-m", "pip", _, *rest]:
            asked = [extra for word in rest for extra in re.findall(r"\[([\w,]+)\]", word) if "jax" not in word]
            assert {extra for names in asked for extra in names.split(",")} <= set(EXTRAS)
        case ["python", "-m", "pytest", *rest] | ["pytest", *rest]:
            assert all((ROOT / word).exists() for word in rest if word.startswith("tests/"))
        case ["python", "-m", module, *_]:
            assert importlib.util.find_spec(module) is not None, f"no module {module}"


def check_suite_command(name, rest):
    """Raise AssertionError unless a subcommand takes these arguments, and the suites and experiments exist."""
    assert name in COMMANDS, f"no command {name}"
    try:
        given = COMMANDS[name].make_context(name, [*rest]).params
    except Exception as refusal:
        raise AssertionError(str(refusal)) from refusal
    known = {"suites": suite_names(), "suite": suite_names(), "experiments": [one.name for one in EXPERIMENTS]}
    for parameter, names in known.items():
        asked = given.get(parameter) or []
        asked = [asked] if isinstance(asked, str) else asked
        assert all(word in names or word.endswith(".toml") for word in asked), f"{asked} not in {names}"


def check_environments(rest):
    """Raise AssertionError unless tox has the environments."""
    names = [word for option, word in pairwise(rest) if option == "-e"]
    for name in ",".join(names).split(","):
        assert not name or f"testenv:{name}" in CONFIG, f"tox has no environment {name}"


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_pages_commands_have_the_arguments_that_the_programs_take(page):
    for words in command_lines(page):
        try:
            check(words)
        except AssertionError as refusal:
            pytest.fail(f"{shlex.join(words)}: {refusal}")


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_command_without_its_programs_name_has_options_of_that_command(page):
    for span in code_spans(page):
        name, *rest = span.split()
        if name in COMMANDS:
            options = {option for parameter in COMMANDS[name].params for option in parameter.opts}
            assert {word for word in rest if word.startswith("--")} <= options, span


@pytest.mark.parametrize(
    "line",
    [
        "symplectic-bench run quikc",
        "symplectic-bench run quick --scael smoke",
        "symplectic-bench walk quick",
        "symplectic-bench paper table9",
        "python -m tox run -e tests",
        'python -m pip install ".[bnech]"',
        "python -m pytest tests/nowhere",
        "python -m symplectic_bench.examples.nothing",
    ],
)
def test_a_command_that_no_program_takes_is_found(line):
    with pytest.raises(AssertionError):
        check(words_of(line))


def test_the_examples_of_the_help_are_commands():
    examples = re.findall(r"symplectic-bench (?!COMMAND).*", HELP)
    assert len(examples) > 4
    for example in examples:
        check(words_of(example))


def test_commands_are_found_in_blocks_and_in_the_text():
    found = [words for page in LINKED for words in command_lines(page)]
    assert ["symplectic-bench", "run", "quick", "--scale", "gpu"] in found
    assert ["python", "-m", "tox", "run", "-e", "bench"] in found
    assert len(found) > 80
