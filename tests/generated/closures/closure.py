"""The base of all closure kinds, and their registry."""

from types import FunctionType

from tests.generated.field import GAINS, IN_EVAL, Values, encode, slope

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

    # touch(self, k), where a kind has it, changes an entry or an attribute beside those that func reads.

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


def of_values(W, t, y, gain=GAINS[0], *, b):
    """Return the slope; its values are arguments, for a partial to bind."""
    return slope(t, y, W, b, gain)


def in_namespace(function, namespace):
    """Return the function with globals of its own, as if another file defined it."""
    return FunctionType(function.__code__, namespace)
