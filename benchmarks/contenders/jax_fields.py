"""The problems' fields and losses once more in JAX, for those that are short.

A field takes the problem's parameters, in the order in which its module has them, then t and y; a loss takes the
buffers that its module has, then ys.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

jnp: Any = importlib.import_module("jax.numpy")

Array = Any
JaxField = Callable[[Sequence[Array], Array, Array], Array]
JaxLoss = Callable[[Mapping[str, Array], Array], Array]


def identity(theta: Sequence[Array], t: Array, y: Array) -> Array:
    del theta, t
    return y


def linear(theta: Sequence[Array], t: Array, y: Array) -> Array:
    del t
    (A,) = theta
    return y @ A.T


def mlp(theta: Sequence[Array], t: Array, y: Array) -> Array:
    time_weight, *layers = theta
    weights, biases = layers[::2], layers[1::2]
    y = y @ weights[0].T + biases[0] + t * time_weight
    for W, b in zip(weights[1:], biases[1:], strict=True):
        y = jnp.tanh(y) @ W.T + b
    return y


def van_der_pol(theta: Sequence[Array], t: Array, y: Array) -> Array:
    del t
    (mu,) = theta
    x, v = y[:, 0], y[:, 1]
    return jnp.stack([v, mu * (1 - x * x) * v - x], axis=1)


def lotka_volterra(theta: Sequence[Array], t: Array, y: Array) -> Array:
    del t
    a, b, c, d = theta[0]
    prey, predators = y[:, 0], y[:, 1]
    meetings = prey * predators
    return jnp.stack([a * prey - b * meetings, c * meetings - d * predators], axis=1)


def mean_square(held: Mapping[str, Array], ys: Array) -> Array:
    return ((ys[1:] - held["target"]) ** 2).mean()


def projection(held: Mapping[str, Array], ys: Array) -> Array:
    return (ys.sum(axis=0) * held["direction"]).sum() / ys.size


FIELDS: dict[str, JaxField] = {
    "identity": identity,
    "linear": linear,
    "mlp": mlp,
    "van_der_pol": van_der_pol,
    "lotka_volterra": lotka_volterra,
}

LOSSES: dict[str, JaxLoss] = {"MeanSquare": mean_square, "Projection": projection}


def array(tensor: Tensor) -> Array:
    return jnp.asarray(tensor.detach().cpu().numpy())
