"""What can go wrong, by name. Everything a solve raises about its numbers derives from SolverError."""


class InvalidTableau(ValueError):
    """A Butcher tableau contradicts itself: rows that do not sum to c, weights that do not sum to 1."""


class UnsupportedCombination(ValueError):
    """Two arguments that are each valid and cannot be used together."""


class LostGradient(ValueError):
    """func uses a tensor that requires a gradient and that the solver was not told about."""


class SolverError(RuntimeError):
    """A solve could not be finished."""


class NonFiniteError(SolverError):
    """NaN or infinity in a state or in func's output."""


class StepSizeUnderflow(SolverError):
    """The tolerance asks for steps too small to advance the time in float64."""


class TooManySteps(SolverError):
    """`max_num_steps` attempts were made before the last time was reached."""
