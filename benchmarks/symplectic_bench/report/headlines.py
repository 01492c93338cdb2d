"""Headlines: findings in words, made from the numbers of a panel or of several."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

COSTS = ("memory", "time", "error")
"""The costs that are compared, in the order in which a headline says them."""

FRACTIONS = {
    1 / 2: "half",
    1 / 3: "a third",
    1 / 4: "a quarter",
    1 / 5: "a fifth",
    1 / 6: "a sixth",
    1 / 7: "a seventh",
    1 / 8: "an eighth",
    1 / 9: "a ninth",
    1 / 10: "a tenth",
    1 / 20: "a twentieth",
    1 / 50: "a fiftieth",
    1 / 100: "a hundredth",
}
CLOSE = 0.035
"""The relative distance within which a ratio is called by the name of a fraction."""


@dataclass(frozen=True)
class Comparison:
    """The costs of a gradient as multiples of those of another: cost -> (smallest, largest)."""

    who: str
    other: str
    ratios: tuple[tuple[str, float, float], ...]

    def __str__(self) -> str:
        owners = [f"{self.other}'s", *["its"] * (len(self.ratios) - 1)]
        found = [
            multiple(low, high, f"{owner} {cost}") for owner, (cost, low, high) in zip(owners, self.ratios, strict=True)
        ]
        return f"{self.who}: {found[0]}" + (f" at {' and '.join(found[1:])}" if found[1:] else "")

    def of(self, *costs: str) -> "Comparison | None":
        """Return the comparison of these costs alone, None if one of them is not compared."""
        chosen = tuple(ratio for ratio in self.ratios if ratio[0] in costs)
        return Comparison(self.who, self.other, chosen) if len(chosen) == len(costs) else None

    @classmethod
    def joined(cls, several: "Sequence[Comparison]") -> "Comparison | None":
        """Return one comparison with the range of each cost, None if they compare different things."""
        if len({(one.who, one.other) for one in several}) != 1:
            return None
        every = [ratio for one in several for ratio in one.ratios]
        ranges = []
        for cost in COSTS:
            own = [(low, high) for name, low, high in every if name == cost]
            if own:
                ranges.append((cost, min(low for low, _ in own), max(high for _, high in own)))
        return cls(several[0].who, several[0].other, tuple(ranges))


@dataclass(frozen=True)
class Share:
    """How many of a panel's points are as the words say."""

    number: int
    total: int
    words: str  # with {} for "3 of 5"

    def __str__(self) -> str:
        return self.words.format(f"{self.number} of {self.total}")

    @classmethod
    def joined(cls, several: "Sequence[Share]") -> "Share | None":
        """Return one share of the points of all, None if they count different things."""
        if len({one.words for one in several}) != 1:
            return None
        return cls(sum(one.number for one in several), sum(one.total for one in several), several[0].words)


@dataclass(frozen=True)
class Bound:
    """The largest number of a panel, which is positive; in words it is rounded up to two digits."""

    value: float
    words: str  # with {} for the number

    def __str__(self) -> str:
        unit = 10.0 ** (math.floor(math.log10(self.value)) - 1)
        return self.words.format(f"{float(f'{math.ceil(self.value / unit * (1 - 1e-12)) * unit:.2g}'):g}")

    @classmethod
    def joined(cls, several: "Sequence[Bound]") -> "Bound | None":
        """Return the largest of all, None if they bound different things."""
        if len({one.words for one in several}) != 1:
            return None
        return cls(max(one.value for one in several), several[0].words)


Headline = Comparison | Share | Bound


def common_headline(headlines: Iterable[Headline | None]) -> str:
    """Return what the panels of a figure show together, and in how many of them.

    Empty unless two or more have a headline, and more than half of all.
    """
    every = list(headlines)
    known = [one for one in every if one is not None]
    kinds = {type(one) for one in known}
    if len(known) < 2 or 2 * len(known) <= len(every) or len(kinds) != 1:
        return ""
    found = kinds.pop().joined(known)  # pyright: ignore[reportArgumentType] - all are of this kind
    where = "" if len(known) == len(every) else f" ({len(known)} of {len(every)} panels)"
    return "" if found is None else f"{found}{where}"


def multiple(low: float, high: float, of: str) -> str:
    """Return "a tenth of it", "1.8 times it", "8 to 40 % of it" or "0.7 to 1.9 times it"."""
    if two_digits(low) != two_digits(high):
        if high < 1:
            return f"{two_digits(100 * low)} to {two_digits(100 * high)} % of {of}"
        return f"{two_digits(low)} to {two_digits(high)} times {of}"
    for fraction, name in FRACTIONS.items():
        if abs(low / fraction - 1) <= CLOSE:
            return f"{name} of {of}"
    if two_digits(low) == "1":
        return f"1.00 times {of}"
    return f"{two_digits(100 * low)} % of {of}" if low < 1 else f"{two_digits(low)} times {of}"


def two_digits(value: float) -> str:
    """Format a positive number to two significant digits, to three between 0.9 and 1.1 or 90 and 110."""
    near = 0.9 < value < 1.1 or 90 < value < 110
    return f"{float(f'{value:.{3 if near else 2}g}'):g}"
