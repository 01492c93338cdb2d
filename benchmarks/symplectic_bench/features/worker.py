"""One process that asks a library the given probes, and prints one line of JSON for each."""

import contextlib
import importlib
import io
import json
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from symplectic_bench.features.answer import Answer, Lacks, judge
from symplectic_bench.features.libraries import LIBRARIES
from symplectic_bench.features.library import Library
from symplectic_bench.features.probes import PROBES

LIMIT_S = 30
"""The longest that a probe may take."""


def ask(library: Library, name: str) -> Answer:
    """Return the library's answer to the probe of this name."""

    def program() -> Any:
        if name in library.lacks:
            raise Lacks(library.lacks[name])
        own = library.programs()
        return own[name]() if name in own else PROBES[name].program(library)

    with time_limit(LIMIT_S):
        return judge(program)


@contextlib.contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise TimeoutError in the block when it takes longer."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"no answer in {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def main(library: str, *probes: str) -> None:
    """Print the answers. What the library prints goes nowhere."""
    # Imported here, because a limit that strikes in an import leaves half a module behind.
    LIBRARIES[library].programs()
    importlib.import_module("torch._dynamo")
    out = os.fdopen(os.dup(1), "w", buffering=1)
    warnings.simplefilter("ignore")
    for name in probes:
        with contextlib.redirect_stdout(io.StringIO()):
            answer = ask(LIBRARIES[library], name)
        print(json.dumps({"probe": name, **asdict(answer)}), file=out)


def arguments(library: str, probes: Sequence[str]) -> list[str]:
    """Return the command that starts such a process."""
    return [sys.executable, "-m", "symplectic_bench.features.worker", library, *probes]


if __name__ == "__main__":
    main(*sys.argv[1:])
