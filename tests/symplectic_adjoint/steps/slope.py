"""A right-hand side whose steps can be computed by hand: f(t, y) = 2 y + t."""


class Slope:
    """Counts calls and keeps their times; adjacent_time moves a time by 1/64, which shows in the numbers."""

    code = resolution = None

    def __init__(self):
        self.f_calls, self.times = 0, []

    def __call__(self, t, y):
        self.f_calls += 1
        self.times.append(float(t))
        return 2 * y + t

    def adjacent_time(self, t, direction):
        return t + direction / abs(direction) / 64

    def restart(self):
        pass

    def place(self, index):
        return f"y[{index}]"
