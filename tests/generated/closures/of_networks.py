"""A network chosen for each segment."""

from tests.generated.closures.closure import OF_NETWORKS, Closure, in_namespace
from tests.generated.field import GAINS
from tests.generated.model import networks


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
