"""The files of tests that are run against the mutants of a folder."""

from pathlib import Path

from tests.mutation.trial import run_tests


class Files:
    """Files of tests, each run by itself: those with the name of the changed file first, then the quickest.

    Raises SystemExit if one of them fails without a mutant.
    """

    def __init__(self, arguments: list[str], output: str) -> None:
        self._output = output
        # A file may skip all cases of a gradient that other files run. Plugins would take most of the time.
        self._options = ["-p", "no:coverage-guard", "--disable-plugin-autoload"]
        self._options += [argument for argument in arguments if argument.startswith("-")]
        self.cpu_s = {file: self._time(file) for file in files_of(arguments)}

    def _time(self, file: str) -> float:
        clean = run_tests([file, *self._options], self._output)
        if clean.outcome != "survived":
            raise SystemExit(f"{file} fails without a mutant:\n{Path(self._output).read_text()}")
        return clean.cpu_s

    def outcome(self, path: str) -> str:
        """Return how the first file ends that does not pass while this file is changed, or "survived"."""
        for file in in_order(self.cpu_s, path):
            ended = run_tests([file, *self._options], self._output, limit_s=10 + 3 * self.cpu_s[file])
            if ended.outcome != "survived":
                return ended.outcome
        return "survived"


def files_of(arguments: list[str]) -> list[str]:
    """Return the files of tests that are named or lie in the folders named."""
    paths = [Path(argument) for argument in arguments if not argument.startswith("-")]
    return [str(file) for path in paths for file in (sorted(path.rglob("test_*.py")) if path.is_dir() else [path])]


def in_order(cpu_s: dict[str, float], path: str) -> list[str]:
    """Return the files of tests in the order in which they are likely to notice a change of this file soon."""
    named = f"test_{Path(path).stem}"
    return sorted(cpu_s, key=lambda file: (not Path(file).stem.startswith(named), cpu_s[file]))
