"""--help shows all that there is, however narrow the terminal, and messages show what was given."""

import os
import re
import subprocess
import sys

import pytest
from typer.main import get_command

from symplectic_bench.commands.app import app
from symplectic_bench.commands.exit_codes import Exit
from tests.clone import PYTHONPATH
from tests.symplectic_bench.run.test_console import HOSTILE

COMMANDS = get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]


def without_spaces(text):
    return re.sub(r"\s", "", text)


def expected(command):
    """Return every text that a command's help must show."""
    texts = [command.help]
    for parameter in command.params:
        texts += [*parameter.opts] if parameter.param_type_name == "option" else [parameter.metavar]
        texts += [parameter.help]
    return texts


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_every_option_and_every_word(bench, name, columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERMINAL_WIDTH", str(columns))
    assert bench(name, "--help") == Exit.DONE
    shown = without_spaces(bench.output)
    assert [text for text in expected(COMMANDS[name]) if without_spaces(text) not in shown] == []
    assert "…" not in shown


@pytest.mark.parametrize("columns", [20, 40, 80])
def test_the_list_of_commands_shows_each_summary_in_full(bench, columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert bench("--help") == Exit.DONE
    shown = without_spaces(bench.output)
    for name, command in COMMANDS.items():
        if not command.hidden:
            assert without_spaces(name + command.help.partition("\n\n")[0]) in shown


@pytest.mark.parametrize("settings", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"FORCE_COLOR": "1", "COLUMNS": "40"}])
def test_help_is_plain_text_without_a_terminal(settings):
    command = [sys.executable, "-m", "symplectic_bench", "run", "--help"]
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH, **settings}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert "\x1b" not in done.stdout and "--cluster-options" in done.stdout


@pytest.mark.parametrize("text", [text for text in HOSTILE if len(text) < 100])
def test_a_message_repeats_what_was_given(bench, text):
    assert bench("run", text) == Exit.USAGE
    assert f"no suite {text!r}" in bench.output
    assert bench("tables", f"{text}.toml") == Exit.USAGE
    assert f"no suite file {f'{text}.toml'!r}" in bench.output
    assert bench("paper", text) == Exit.USAGE
    assert f"no experiment {text!r}" in bench.output
    assert bench("check", "--problem", text) == Exit.USAGE
    assert f"--problem {text}: " in bench.output


def test_names_in_files_are_printed_as_they_are(bench):
    suite = bench.folder / "small.toml"
    good = suite.read_text()
    for name in ("[red]x[/]", ":smile:", "\\u001b[31m"):
        suite.write_text(good.replace('ours = ["baseline"', f'"{name}" = ["baseline"'))
        assert bench("run", "small.toml") == Exit.DONE
        shown = name.replace("\\u001b", "\\x1b")
        assert (
            f"ok: mlp(layers=2, state=32, width=64) batch 128, dopri5 rtol 0.001 atol 1e-05, float64: {shown} b"
            in bench.output
        )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "small.toml", "--repeats", "x"), "'--repeats': must be a whole number; got 'x'"),
        (("run", "small.toml", "--repeats", "0"), "'--repeats': must be at least 1; got '0'"),
        (("run", "small.toml", "--scale", "Smoke"), "'--scale': unknown 'Smoke'; did you mean 'smoke'?"),
        (("run", "small.toml", "--device", "CPU"), "--device CPU: unknown; did you mean 'cpu'?"),
        (("run", "small.toml", "--cluster", "Slurm"), "--cluster Slurm: unknown; did you mean 'slurm'?"),
        (("run", "small.toml", "--only", "Gradient=aca"), "no such axis; did you mean 'gradient'?"),
        (("run", "small.toml", "--only", "gradient=ACA"), "no cell has it; did you mean 'aca'?"),
        (("paper", "Table-2"), "did you mean 'table2'?"),
        (("portraits", "Lorentz"), "no problem 'Lorentz'; did you mean 'lorenz'?"),
        (("references", "quik"), "no suite 'quik'; did you mean 'quick'?"),
    ],
)
def test_a_mistake_is_answered_in_our_words(bench, arguments, words):
    assert bench(*arguments) in (Exit.USAGE, Exit.NOTHING_RAN)
    assert words in bench.output
    assert "Value error" not in bench.output and "Input should" not in bench.output
