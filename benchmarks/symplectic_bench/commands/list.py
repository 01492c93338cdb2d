"""list: what there is to be measured."""

from collections.abc import Iterable, Sequence

from rich.markup import escape

from symplectic_bench.commands.exit_codes import console
from symplectic_bench.run.sweep import load_vocabulary
from symplectic_bench.spec.suite import Scale, load_suite, suite_names


def catalogue() -> None:
    """Show the suites, problems with their sizes, methods, gradients and contenders that there are."""
    # Imported here because they import torch, which takes seconds that other commands should not.
    from symplectic_bench.contenders.registry import CONTENDERS

    vocabulary, tasks = load_vocabulary(), load_vocabulary(trains=True)
    loaded = {name: load_suite(name) for name in suite_names()}
    heading(
        "Suites", [f"{name}: {suite.title} (scales {', '.join(scales(suite.scale))})" for name, suite in loaded.items()]
    )
    for title, families in (("Problems", vocabulary.problems), ("Tasks, for suites that train", tasks.problems)):
        described = [f"{name}: {', '.join(f'{k}={v}' for k, v in sizes.items())}" for name, sizes in families.items()]
        heading(f"{title}, with their sizes' defaults", described)
    heading("Methods", [", ".join(vocabulary.methods)])
    rivals = [
        f"{name}: {', '.join(contender.gradients)}" + (f" ({missing})" if (missing := contender.missing()) else "")
        for name, contender in CONTENDERS.items()
    ]
    heading("Contenders, with their gradients", rivals)


def scales(given: Iterable[Scale]) -> list[str]:
    return [scale.value for scale in Scale if scale in (Scale.CPU, *given)]


def heading(title: str, lines: Sequence[str]) -> None:
    console.print(f"[bold]{title}")
    for line in lines:
        console.print(f"  {escape(line)}")
