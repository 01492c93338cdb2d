"""list: print the names that a suite may use."""

from collections.abc import Iterable, Sequence

from symplectic_bench.run.console import console
from symplectic_bench.run.sweep import load_vocabulary
from symplectic_bench.spec.suite import Scale, load_suite, suite_names


def list_everything() -> None:
    """List the suites, the problems with their sizes, the methods, and the contenders with their gradients."""
    # Imported here because it imports torch, which would slow down other commands by seconds.
    from symplectic_bench.contenders.registry import CONTENDERS

    vocabulary, tasks = load_vocabulary(), load_vocabulary(trains=True)
    loaded = {name: load_suite(name) for name in suite_names()}
    print_section(
        "Suites", [f"{name}: {suite.title} (scales {', '.join(scales(suite.scale))})" for name, suite in loaded.items()]
    )
    for title, families in (("Problems", vocabulary.problems), ("Tasks, for suites that train", tasks.problems)):
        described = [f"{name}: {', '.join(f'{k}={v}' for k, v in sizes.items())}" for name, sizes in families.items()]
        print_section(f"{title}, with default sizes", described)
    print_section("Methods", [", ".join(vocabulary.methods)])
    contenders = [
        f"{name}: {', '.join(contender.gradients)}" + (f" ({missing})" if (missing := contender.missing()) else "")
        for name, contender in CONTENDERS.items()
    ]
    print_section("Contenders, with their gradients", contenders)


def scales(given: Iterable[Scale]) -> list[str]:
    """Return the names of the scales that a suite has: its own, cpu, and the given ones."""
    return [scale.value for scale in Scale if scale in (Scale.CPU, *given)]


def print_section(title: str, lines: Sequence[str]) -> None:
    """Print a bold title and the lines below it."""
    console.print(title, style="bold")
    for line in lines:
        console.print(f"  {line}")
