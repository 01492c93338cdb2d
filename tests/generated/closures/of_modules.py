"""func is a module, a method of one, or a function around one."""

from functools import partial
from types import SimpleNamespace

from torch import nn

from tests.generated.closures.closure import OF_NETWORKS, Closure
from tests.generated.field import GAINS, encode
from tests.generated.model import Model, networks


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

    def touch(self, k):
        self.model.epoch = k


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


class CountingModule(_OfModel):
    """Counts its calls, as most published fields do, and keeps the last time."""

    def func(self):
        return self.model.counted


class ListOfModule(_OfModel):
    """The number is in a list that the module holds."""

    content = True

    def prepare(self):
        self.model = Model(self.W, self.b)
        self.model.schedule = [1.0, GAINS[0]]

    def func(self):
        return self.model.scheduled

    def turn(self, k):
        self.model.schedule[1] = GAINS[k % 3]

    def touch(self, k):
        self.model.schedule.append(k)


class ConfigOfModule(_OfModel):
    """The number is an attribute of a plain object that the module holds."""

    content = True

    def prepare(self):
        self.model = Model(self.W, self.b)
        self.model.config = SimpleNamespace(gain=GAINS[0])

    def func(self):
        return self.model.configured

    def turn(self, k):
        self.model.config.gain = GAINS[k % 3]

    def touch(self, k):
        self.model.config.epoch = k


class ConfigReplaced(ConfigOfModule):
    """The module's attribute is another object for each segment."""

    content = False

    def turn(self, k):
        self.model.config = SimpleNamespace(gain=GAINS[k % 3])
