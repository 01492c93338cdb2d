"""What containers and plain objects hold, which a solve cannot copy: changes there may be refused."""

from functools import partial
from types import ModuleType, SimpleNamespace

import numpy
import torch

from tests.generated.closures.closure import OF_NETWORKS, Closure, in_namespace, of_values
from tests.generated.closures.of_functions import GlobalTensor
from tests.generated.field import GAINS, slope
from tests.generated.model import Network, networks


class ListInClosure(Closure):
    """Tensors and the number are in a list, which changes."""

    turns, content = "number", True

    def prepare(self):
        self.held = [self.W, self.b, GAINS[0]]

    def func(self):
        held = self.held
        return lambda t, y: slope(t, y, held[0], held[1], held[2])

    def turn(self, k):
        self.held[2] = GAINS[k % 3]

    def touch(self, k):
        self.held.append(k)


class DictInClosure(ListInClosure):
    encodes = True

    def prepare(self):
        self.held = {"W": self.W, "b": self.b, "gain": GAINS[0]}

    def func(self):
        held = self.held
        return lambda t, y: slope(t, y, held["W"], held["b"], held["gain"])

    def turn(self, k):
        self.held["gain"] = GAINS[k % 3]

    def touch(self, k):
        self.held["epoch"] = k


class NamespaceInClosure(ListInClosure):
    """Tensors and the number are attributes of an object in the closure."""

    encodes = True

    def prepare(self):
        self.held = SimpleNamespace(W=self.W, b=self.b, gain=GAINS[0])

    def func(self):
        held = self.held
        return lambda t, y: slope(t, y, held.W, held.b, held.gain)

    def turn(self, k):
        self.held.gain = GAINS[k % 3]

    def touch(self, k):
        self.held.epoch = k


class CallableObject(Closure):
    """A plain object with __call__ that holds the network, and the number as its attribute."""

    turns, content = "number", True
    parameters = ("W0", "b0")

    def prepare(self):
        self.object = Callable(Network(self.W, self.b))

    def func(self):
        return self.object

    def turn(self, k):
        self.object.gain = GAINS[k % 3]

    def touch(self, k):
        self.object.epoch = k


class CallableOfTensors(CallableObject):
    """A plain object with __call__ that holds the tensors themselves."""

    encodes = True
    parameters = ()

    def prepare(self):
        self.object = Callable(partial(of_values, self.W, b=self.b))


class NetworkOfObject(CallableObject):
    """A plain object whose attribute is the network of a segment."""

    turns = "network"
    parameters = OF_NETWORKS

    def prepare(self):
        self.networks = networks(self.leaves)
        self.object = Callable(self.networks[0])

    def turn(self, k):
        self.object.network = self.networks[k % 2]


class Callable:
    """A plain object of the user's."""

    def __init__(self, network):
        self.network, self.gain = network, GAINS[0]

    def __call__(self, t, y):
        return self.network(t, y, self.gain)


class LoggingList(ListInClosure):
    """func appends every time at which it is called to a list in its closure."""

    def func(self):
        held, times = self.held, []

        def f(t, y):
            times.append(float(t))
            return slope(t, y, held[0], held[1], held[2])

        return f


class CountingObject(CallableObject):
    """A plain object that counts its calls."""

    def prepare(self):
        self.object = Counting(Network(self.W, self.b))


class Counting(Callable):
    def __init__(self, network):
        super().__init__(network)
        self.nfe = 0

    def __call__(self, t, y):
        self.nfe += 1
        return super().__call__(t, y)


class ArgumentsInGlobal(GlobalTensor):
    """The number is an attribute of a global object, such as parsed arguments."""

    content = True

    def prepare(self):
        self.module = {"slope": slope, "W": self.W, "b": self.b, "args": SimpleNamespace(gain=GAINS[0])}
        self.function = in_namespace(lambda t, y: slope(t, y, W, b, args.gain), self.module)  # noqa: F821

    def turn(self, k):
        self.module["args"].gain = GAINS[k % 3]


class AttributeOfImportedModule(ArgumentsInGlobal):
    """The number is an attribute of an imported module."""

    def prepare(self):
        super().prepare()
        self.module["args"] = ModuleType("config")
        self.module["args"].gain = GAINS[0]


class AttributeOfFunction(Closure):
    """The number is an attribute of the function itself."""

    turns, content = "number", True

    def prepare(self):
        W, b = self.W, self.b

        def f(t, y):
            return slope(t, y, W, b, f.gain)

        f.gain = GAINS[0]
        self.function = f

    def func(self):
        return self.function

    def turn(self, k):
        self.function.gain = GAINS[k % 3]


class AttributeOfClass(CallableObject):
    """The number is an attribute of the object's class."""

    def prepare(self):
        self.object = type("OfThisCase", (Callable,), {})(Network(self.W, self.b))
        del self.object.gain
        type(self.object).gain = GAINS[0]

    def turn(self, k):
        type(self.object).gain = GAINS[k % 3]


class ControlTensorInPlace(Closure):
    """The number is a tensor without gradient in a closure, changed in place."""

    turns, content = "number", True

    def prepare(self):
        W, b, self.control = self.W, self.b, torch.tensor(GAINS[0], dtype=torch.float64)
        control = self.control
        self.lambda_ = lambda t, y: slope(t, y, W, b, control.item())

    def func(self):
        return self.lambda_

    def turn(self, k):
        self.control.fill_(GAINS[k % 3])


class ArrayInClosure(ControlTensorInPlace):
    """The number is in a numpy array."""

    def prepare(self):
        W, b, self.control = self.W, self.b, numpy.array([GAINS[0]])
        control = self.control
        self.lambda_ = lambda t, y: slope(t, y, W, b, float(control[0]))

    def turn(self, k):
        self.control[0] = GAINS[k % 3]


class NestedContainers(ListInClosure):
    """Tensors are deep in a list of dicts, the number in an object in it."""

    encodes = True

    def prepare(self):
        self.held = [{"layers": [(self.W, self.b)]}, SimpleNamespace(gain=GAINS[0])]

    def func(self):
        held = self.held

        def f(t, y):
            W, b = held[0]["layers"][0]
            return slope(t, y, W, b, held[1].gain)

        return f

    def turn(self, k):
        self.held[1].gain = GAINS[k % 3]
