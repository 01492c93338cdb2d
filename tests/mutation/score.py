"""The share of mutants that the tests kill."""

from collections import Counter
from collections.abc import Mapping
from math import sqrt

Z = 1.959963984540054  # of a two-sided interval of 95 %


def share(outcomes: Counter[str]) -> float:
    """Return the part that was killed of those that could be: a mutant that runs into its time limit is killed."""
    killed = outcomes["killed"] + outcomes["timeout"]
    tried = killed + outcomes["survived"]
    return killed / tried if tried else 1.0


def wilson(share: float, n: int) -> tuple[float, float]:
    """Return Wilson's interval (1927) of a share seen in n draws."""
    if n == 0:
        return 0.0, 1.0
    middle = share + Z**2 / (2 * n)
    half = Z * sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    scale = 1 + Z**2 / n
    return (middle - half) / scale, (middle + half) / scale


def table(outcomes: Mapping[str, Counter[str]], populations: Mapping[str, int]) -> str:
    """Return a Markdown table with a row for each folder."""
    head = "| folder | mutants | tried | killed | by time limit | survived | equivalent | killed, % | 95 % interval |"
    lines = [head, "|---|" + "---:|" * 8]
    for folder, seen in outcomes.items():
        n = seen["killed"] + seen["timeout"] + seen["survived"]
        low, high = wilson(share(seen), n)
        cells = (
            folder,
            populations[folder],
            n,
            seen["killed"] + seen["timeout"],
            seen["timeout"],
            seen["survived"],
            seen["equivalent"],
            f"{100 * share(seen):.1f}",
            f"{100 * low:.1f} to {100 * high:.1f}",
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)
