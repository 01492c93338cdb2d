"""The ways in which the values of the field reach func: one class a kind, as users write them.

A kind is built from leaves; func() is what the user passes to a solve that starts now, and turn(k) changes what func
reads to its k-th value. values() says what that is, for the truth, without any of it.
"""

from functools import partial
from types import FunctionType, SimpleNamespace

import torch
from torch import nn

from tests.generated.field import GAINS, IN_EVAL, Values, encode, slope
from tests.generated.model import Model, Network

CLOSURES = {}
"""The kinds by name."""
OF_NETWORKS = ("W0", "b0", "W1", "b1")


class Closure:
    """How values reach func. Derive from it to add a kind; its name is that of the class, in words."""

    turns = None
    """What turn changes: "number", "network", or None if func reads nothing that can be turned."""
    content = False
    """Whether turn changes an attribute of a plain object or what a container holds: this cannot be copied."""
    encodes = False
    """Whether values of the field are computed outside func from the leaves."""
    parameters = ()
    """Which leaves are nn.Parameters; the others are plain tensors."""
    has_model = False
    """Whether func belongs to a module, self.model, with a mode and with parts that func never reads."""

    def __init_subclass__(cls, **keywords):
        super().__init_subclass__(**keywords)
        if not cls.__name__.startswith("_"):
            CLOSURES["".join(f" {x.lower()}" if x.isupper() else x for x in cls.__name__).strip()] = cls

    def __init__(self, leaves):
        self.leaves = leaves
        self.W, self.b = self.upstream(leaves)
        self.prepare()

    def prepare(self):
        """Make what func reads."""

    def func(self):
        raise NotImplementedError

    def turn(self, k):
        raise NotImplementedError

    @classmethod
    def upstream(cls, leaves):
        """Return W and b as they are computed before func is called."""
        if not cls.encodes:
            return leaves["W0"], leaves["b0"]
        return encode(leaves["W0"]), leaves["b0"]

    @classmethod
    def values(cls, leaves, k, training):
        """Return what func reads at its k-th turn."""
        n = k % 2 if cls.turns == "network" else 0
        W, b = (leaves[f"W{n}"], leaves[f"b{n}"]) if cls.turns == "network" else cls.upstream(leaves)
        gain = GAINS[k % 3] if cls.turns == "number" else GAINS[0]
        return Values(W, b, gain if training or not cls.has_model else gain * IN_EVAL)

    @classmethod
    def adopted(cls, leaves, upstream):
        """Return those of (W, b) that are no leaves."""
        return [x for x in upstream if all(x is not leaf for leaf in leaves.values())]


class _OfModel(Closure):
    """func is a module or a method of one, whose plain attribute `gain` is the number."""

    turns = "number"
    parameters = ("W0", "b0")
    has_model = True

    def prepare(self):
        self.model = Model(self.W, self.b)

    def func(self):
        return self.model

    def turn(self, k):
        self.model.gain = GAINS[k % 3]


class Module(_OfModel):
    pass


class BoundMethod(_OfModel):
    def func(self):
        return self.model.field


class PartialOfModule(_OfModel):
    def func(self):
        return partial(self.model.scaled, 1.0)


class LeafAttribute(_OfModel):
    """W is a plain tensor attribute, not a parameter."""

    parameters = ("b0",)

    def prepare(self):
        self.model = Model(None, self.b)
        self.model.W = self.W


class EncodedAttribute(LeafAttribute):
    encodes = True


class EncodedBuffer(LeafAttribute):
    encodes = True

    def prepare(self):
        self.model = Model(None, self.b)
        self.model.register_buffer("W", self.W)


class EncodedByItself(_OfModel):
    """W is computed by func's own module, which also uses the parameter that it is computed from."""

    encodes = True

    def prepare(self):
        self.model = Model(self.leaves["W0"], self.leaves["b0"])
        self.model.code = encode(self.model.W)

    @classmethod
    def upstream(cls, leaves):
        return leaves["W0"] + encode(leaves["W0"]), leaves["b0"]

    @classmethod
    def adopted(cls, leaves, upstream):
        return []  # what func adopts also has a way to the leaf that does not pass through it


class SubmoduleSwitched(_OfModel):
    """An attribute of the module says which of its networks acts."""

    turns = "network"
    parameters = OF_NETWORKS

    def prepare(self):
        self.model = Model(*(self.leaves[x] for x in ("W0", "b0")))
        self.model.networks = nn.ModuleList(networks(self.leaves))

    def turn(self, k):
        self.model.which = k % 2

    def func(self):
        return self.model.of_network


class NestedFunction(_OfModel):
    """A function made inside a method: its closure holds the owner, a plain object that holds the module."""

    def func(self):
        def f(t, x):
            return self.model(t, x)

        return f


class MethodOfOwner(_OfModel):
    """A method of a plain object that holds the module."""

    def func(self):
        return self.call

    def call(self, t, y):
        return self.model(t, y)


class ModuleInClosure(_OfModel):
    def func(self):
        model = self.model
        return lambda t, y: model(t, y)


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


class ListInClosure(Closure):
    """Tensors and the number are in a list, which changes."""

    turns, content = "number", True

    def prepare(self):
        self.held = [self.W, self.b, GAINS[0]]

    def func(self):
        held = self.held
        return lambda t, y: slope(t, y, *held)

    def turn(self, k):
        self.held[2] = GAINS[k % 3]


class DictInClosure(ListInClosure):
    encodes = True

    def prepare(self):
        self.held = {"W": self.W, "b": self.b, "gain": GAINS[0]}

    def func(self):
        held = self.held
        return lambda t, y: slope(t, y, **held)

    def turn(self, k):
        self.held["gain"] = GAINS[k % 3]


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


class NetworkInClosure(Closure):
    """A network chosen for each segment, in a closure's variable."""

    turns = "network"
    parameters = OF_NETWORKS

    def prepare(self):
        both = networks(self.leaves)
        network = both[0]

        def rebind(k):
            nonlocal network
            network = both[k % 2]

        self.turn = rebind
        self.lambda_ = lambda t, y: network(t, y, GAINS[0])

    def func(self):
        return self.lambda_


class NetworkInGlobal(Closure):
    turns = "network"
    parameters = OF_NETWORKS

    def prepare(self):
        self.networks = networks(self.leaves)
        self.module = {"network": self.networks[0], "gain": GAINS[0]}
        self.function = in_namespace(lambda t, y: network(t, y, gain), self.module)  # noqa: F821

    def func(self):
        return self.function

    def turn(self, k):
        self.module["network"] = self.networks[k % 2]


class NetworkByIndex(Closure):
    """A closure's number is the index of a network in a list."""

    turns = "network"
    parameters = OF_NETWORKS

    def prepare(self):
        both, index = networks(self.leaves), 0

        def rebind(k):
            nonlocal index
            index = k % 2

        self.turn = rebind
        self.lambda_ = lambda t, y: both[index](t, y, GAINS[0])

    def func(self):
        return self.lambda_


class _Pieces(LeafInClosure):
    encodes = True

    @classmethod
    def joined(cls, leaves):
        return encode(torch.cat([leaves["W0"], leaves["b0"].unsqueeze(1)], dim=1))


class PiecesOfSplit(_Pieces):
    @classmethod
    def upstream(cls, leaves):
        W, b = cls.joined(leaves).split([len(leaves["b0"]), 1], dim=1)
        return W, b.squeeze(1)


class PiecesOfUnbind(_Pieces):
    """Both values are outputs of one node."""

    @classmethod
    def upstream(cls, leaves):
        *rows, b = torch.cat([encode(leaves["W0"]), leaves["b0"].unsqueeze(0)]).unbind()
        return torch.stack(rows), b


class ViewOfChangedBase(LeafInClosure):
    """W is a view, made before its base was changed in place."""

    encodes = True

    @classmethod
    def upstream(cls, leaves):
        base = torch.cat([encode(leaves["W0"]), leaves["b0"].unsqueeze(0)])
        W, b = base[:-1], base[-1]
        base.mul_(0.9)
        base[0].add_(0.1)
        return W, b


class OutputsOfOneFunction(LeafInClosure):
    """W and b are the two outputs of one custom Function."""

    encodes = True

    @classmethod
    def upstream(cls, leaves):
        return TwoOutputs.apply(leaves["W0"], leaves["b0"])


class TwoOutputs(torch.autograd.Function):
    """(a, b) -> (2a, 3b + sum(a)), differentiable twice."""

    @staticmethod
    def forward(ctx, a, b):
        return 2.0 * a, 3.0 * b + a.sum()

    @staticmethod
    def backward(ctx, grad_a, grad_b):
        return 2.0 * grad_a + grad_b.sum(), 3.0 * grad_b


class Callable:
    """A plain object of the user's."""

    def __init__(self, network):
        self.network, self.gain = network, GAINS[0]

    def __call__(self, t, y):
        return self.network(t, y, self.gain)


def networks(leaves):
    """Return the networks of two segments."""
    return [Network(leaves["W0"], leaves["b0"]), Network(leaves["W1"], leaves["b1"])]


def of_values(W, t, y, gain=GAINS[0], *, b):
    """Return the slope; its values are arguments, for a partial to bind."""
    return slope(t, y, W, b, gain)


def in_namespace(function, namespace):
    """Return the function with globals of its own, as if another file defined it."""
    return FunctionType(function.__code__, namespace)
