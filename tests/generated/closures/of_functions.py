"""What plain functions read: cells, globals, defaults, arguments of partials."""

from functools import partial, wraps

import torch

from tests.generated.closures.closure import Closure, in_namespace, of_values
from tests.generated.field import GAINS, slope
from tests.generated.model import Network


class NumberInClosure(Closure):
    """A control held in a closure, beside a network: one lambda for all solves, its variable rebound."""

    turns = "number"
    parameters = ("W0", "b0")

    def prepare(self):
        network, gain = Network(self.W, self.b), GAINS[0]

        def rebind(k):
            nonlocal gain
            gain = GAINS[k % 3]

        self.turn = rebind
        self.lambda_ = lambda t, y: network(t, y, gain)

    def func(self):
        return self.lambda_


class LateBinding(Closure):
    """A lambda a solve, all of which read the variable of the loop that makes them."""

    turns = "number"

    def prepare(self):
        self.module = {"gain": GAINS[0], "slope": slope, "W": self.W, "b": self.b}

    def func(self):
        return in_namespace(lambda t, y: slope(t, y, W, b, gain), self.module)  # noqa: F821

    def turn(self, k):
        self.module["gain"] = GAINS[k % 3]


class DefaultArgument(NumberInClosure):
    """The number is a default argument of a lambda made for each solve."""

    def prepare(self):
        self.network, self.gain = Network(self.W, self.b), GAINS[0]

    def turn(self, k):
        self.gain = GAINS[k % 3]

    def func(self):
        network = self.network
        return lambda t, y, gain=self.gain: network(t, y, gain)


class ControlTensor(Closure):
    """The number is a tensor without gradient in a closure."""

    turns = "number"

    def prepare(self):
        W, b, gain = self.W, self.b, torch.tensor(GAINS[0], dtype=torch.float64)

        def rebind(k):
            nonlocal gain
            gain = torch.tensor(GAINS[k % 3], dtype=torch.float64)

        self.turn = rebind
        self.lambda_ = lambda t, y: slope(t, y, W, b, gain.item())

    def func(self):
        return self.lambda_


class LeafInClosure(Closure):
    def func(self):
        W, b = self.W, self.b
        return lambda t, y: slope(t, y, W, b, GAINS[0])


class EncodedInClosure(LeafInClosure):
    encodes = True


class TwoLevelsOfFunctions(LeafInClosure):
    """The tensors are in the closure of a helper that func's closure holds."""

    encodes = True

    def func(self):
        W, b = self.W, self.b

        def helper(t, y):
            return slope(t, y, W, b, GAINS[0])

        return lambda t, y: helper(t, y)


class PartialArguments(Closure):
    encodes = True

    def func(self):
        return partial(of_values, self.W, b=self.b)


class LeafInPartial(PartialArguments):
    encodes = False


class GlobalTensor(Closure):
    """Tensors and the number are globals of func."""

    turns = "number"

    def prepare(self):
        self.module = {"slope": slope, "W": self.W, "b": self.b, "gain": GAINS[0]}
        self.function = in_namespace(lambda t, y: slope(t, y, W, b, gain), self.module)  # noqa: F821

    def func(self):
        return self.function

    def turn(self, k):
        self.module["gain"] = GAINS[k % 3]


class EncodedGlobal(GlobalTensor):
    encodes = True


class NumberOfHelper(LeafInClosure):
    """The number is in the closure of a helper that func's closure holds."""

    turns = "number"

    def prepare(self):
        W, b, gain = self.W, self.b, GAINS[0]

        def rebind(k):
            nonlocal gain
            gain = GAINS[k % 3]

        def helper(t, y):
            return slope(t, y, W, b, gain)

        self.turn = rebind
        self.lambda_ = lambda t, y: helper(t, y)

    def func(self):
        return self.lambda_


class GlobalOfHelper(GlobalTensor):
    """The number is a global that a helper reads, itself a global of func."""

    def prepare(self):
        self.module = {"slope": slope, "W": self.W, "b": self.b, "gain": GAINS[0]}
        self.module["helper"] = in_namespace(lambda t, y: slope(t, y, W, b, gain), self.module)  # noqa: F821
        self.function = in_namespace(lambda t, y: helper(t, y), self.module)  # noqa: F821


class ClosureOfPartial(NumberOfHelper):
    """A partial of a function whose closure holds the number."""

    encodes = True

    def prepare(self):
        b, gain = self.b, GAINS[0]

        def rebind(k):
            nonlocal gain
            gain = GAINS[k % 3]

        def of_weights(W, t, y):
            return slope(t, y, W, b, gain)

        self.turn = rebind
        self.lambda_ = partial(of_weights, self.W)


class DecoratedFunction(NumberOfHelper):
    """A wrapper made by a decorator, around a function that counts its calls in a variable that it assigns."""

    def prepare(self):
        W, b, gain, calls = self.W, self.b, GAINS[0], 0

        def rebind(k):
            nonlocal gain
            gain = GAINS[k % 3]

        def field(t, y):
            nonlocal calls
            calls += 1
            return slope(t, y, W, b, gain)

        @wraps(field)
        def wrapper(*args, **keywords):
            return field(*args, **keywords)

        self.turn = rebind
        self.lambda_ = wrapper


class TupleInClosure(NumberOfHelper):
    """A tuple in the closure, another one for each segment."""

    encodes = True

    def prepare(self):
        held = (self.W, self.b, GAINS[0])

        def rebind(k):
            nonlocal held
            held = (*held[:2], GAINS[k % 3])

        self.turn = rebind
        self.lambda_ = lambda t, y: slope(t, y, *held)
