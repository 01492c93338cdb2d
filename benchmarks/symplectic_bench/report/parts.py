"""The parts of a figure with many panels, each a figure of its own."""

import math
from collections.abc import Iterable
from dataclasses import replace

from symplectic_bench.report.panels import FigureSpec

MOST_PANELS = 6
"""The largest number of panels in a figure, unless a single block has more."""


def parts(figure: FigureSpec) -> list[FigureSpec]:
    """Return figures of at most MOST_PANELS panels, as equal as possible: name, name-2, name-3, ..

    The blocks stay whole and in their order, so the first part has what the suite names first.
    """
    blocks = figure.blocks
    most = max(1, MOST_PANELS // max(map(len, blocks), default=1))
    number = math.ceil(len(blocks) / most)
    if number <= 1:
        return [figure]
    bounds = [math.ceil(i * len(blocks) / number) for i in range(number + 1)]
    return [
        replace(
            figure,
            name=figure.name if i == 0 else f"{figure.name}-{i + 1}",
            title=f"{figure.title} ({i + 1} of {number})",
            blocks=blocks[bounds[i] : bounds[i + 1]],
        )
        for i in range(number)
    ]


def further_parts(figures: Iterable[FigureSpec]) -> list[FigureSpec]:
    """Return the other parts of all figures, which the page's appendix shows."""
    return [part for figure in figures for part in parts(figure)[1:]]
