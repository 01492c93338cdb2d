"""The bracket of a change of sign, narrowed to the resolution of its times."""

import math


class Bracket:
    """Two times, `low` with a positive value and `high` without one, narrowed by evaluating guesses between them.

    Chandrupatla's method (Advances in Engineering Software 28, 1997): inverse quadratic interpolation where three
    values lie on a smooth monotonic curve, else bisection. A jump and a function that is zero from some time on are
    bisected: both are found as accurately as a smooth zero. Three updates without halving force a bisection, so that
    there are at most four updates per bit.

    eps: the relative resolution of a time within the span. grain: the least distance of two times, if it is more than
    their spacing. fall: how much the value falls over the span, infinite if either value is.
    """

    def __init__(self, low: float, high: float, value_low: float, value_high: float, eps: float, grain: float = 0.0):
        self._newest, self._other = (high, value_high), (low, value_low)
        self._third: tuple[float, float] | None = None
        self._eps, self._grain, self._span = eps, grain, abs(high - low)
        self._width, self._slow = self._span, 0
        self.fall = self.drop

    @property
    def low(self) -> float:
        """The latest time before the change of sign."""
        return self._newest[0] if self._newest[1] > 0.0 else self._other[0]

    @property
    def high(self) -> float:
        """The earliest time after the change of sign."""
        return self._other[0] if self._newest[1] > 0.0 else self._newest[0]

    @property
    def drop(self) -> float:
        """How much the value falls from low to high, infinite if either value is."""
        drop = abs(self._newest[1] - self._other[1])
        return math.inf if math.isnan(drop) else drop

    @property
    def converged(self) -> bool:
        """Whether low and high differ by no more than rounding error."""
        return abs(self._newest[0] - self._other[0]) <= self._tolerance()

    def guess(self) -> float:
        """Return where to evaluate the event function next."""
        x1, x2 = self._newest[0], self._other[0]
        least = min(0.5, max(0.5 * self._tolerance(), 1.5 * self._spacing()) / abs(x2 - x1))
        share = 0.5 if self._slow >= 3 else self._interpolated()
        return x1 + min(max(share, least), 1.0 - least) * (x2 - x1)

    def update(self, x: float, value: float) -> None:
        """Narrow the bracket by the value of the event function at the guess x."""
        if (value > 0.0) == (self._newest[1] > 0.0):
            self._third = self._newest
        else:
            self._third, self._other = self._other, self._newest
        self._newest = x, value
        width = abs(x - self._other[0])
        self._slow += 1
        if width <= 0.5 * self._width:
            self._width, self._slow = width, 0

    def _tolerance(self) -> float:
        """Return the distance at which two times of the bracket no longer differ.

        States resolve the step's span, and times their own size. Near t = 0 that size vanishes: twenty bits beyond the
        span's resolution are enough.
        """
        size = max(abs(self._newest[0]), abs(self._other[0]))
        rounding = self._eps * max(min(4.0 * self._span, size), self._span * 2.0**-20)
        return max(rounding, 2.0 * self._spacing())

    def _spacing(self) -> float:
        return max(self._grain, math.ulp(max(abs(self._newest[0]), abs(self._other[0]))))

    def _interpolated(self) -> float:
        """Return the estimated zero as a fraction of the way from the newest point to the other end."""
        (x1, f1), (x2, f2) = self._newest, self._other
        if not (math.isfinite(f1) and math.isfinite(f2)):
            return 0.5
        if self._third is None:
            return f1 / (f1 - f2)
        x3, f3 = self._third
        if not math.isfinite(f3) or f3 in (f1, f2):
            return 0.5
        position, height = (x1 - x2) / (x3 - x2), (f1 - f2) / (f3 - f2)
        if height * height >= position or (1.0 - height) ** 2 >= 1.0 - position:
            return 0.5
        return f1 / (f2 - f1) * f3 / (f2 - f3) + (x3 - x1) / (x2 - x1) * f1 / (f3 - f1) * f2 / (f3 - f2)
