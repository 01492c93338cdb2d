"""Continuous normalizing flows for tables, and multi-scale ones for images.

Grathwohl, Chen, Bettencourt, Sutskever and Duvenaud, FFJORD: Free-form Continuous Dynamics for Scalable Reversible
Generative Models, ICLR 2019. The scales are those of Dinh, Sohl-Dickstein and Bengio, Density Estimation Using Real
NVP, ICLR 2017: after each scale half of the variables are final, and the others go on at half the resolution.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from symplectic_bench.models.integrate import UNIT_TIME, Integrate
from symplectic_bench.problems.flow import ConcatSquash, Transport, Velocity

Noise = Callable[[Tensor], Tensor | None]
"""Draws the noise of Hutchinson's trace estimator for one component, in the shape of z, (batch, dim).

It returns None for the exact trace.
"""


def exact_trace(z: Tensor) -> None:
    """Return None, for the exact trace."""
    del z


class Flow(nn.Module):
    """M components, solved in turn, each from time 0 to 1, that map data x, (batch, dim), to a normal distribution."""

    def __init__(self, velocities: Sequence[nn.Module]) -> None:
        super().__init__()
        self.components = transport_fields(velocities)

    def log_density(self, x: Tensor, integrate: Integrate, noise: Noise) -> Tensor:
        """Return log p(x), (batch,), in nats."""
        z, change = push_forward(self.components, x, integrate, noise)
        return log_normal(z) - change


def transport_fields(velocities: Iterable[nn.Module]) -> nn.ModuleList:
    """Return a Transport field for each velocity.

    The fields are made once, not for every solve, because a solver may cache what it has found out about a field.
    """
    return nn.ModuleList(Transport(velocity, None) for velocity in velocities)


def clear_noise(model: nn.Module) -> None:
    """Release the noise that the model's fields hold."""
    for module in model.modules():
        if isinstance(module, Transport):
            module.noise = None


def push_forward(components: nn.ModuleList, x: Tensor, integrate: Integrate, noise: Noise) -> tuple[Tensor, Tensor]:
    """Return z after the last component, (batch, dim), and the change l of the log-density, (batch,)."""
    state = torch.cat([x, x.new_zeros(len(x), 1)], dim=1)
    for field in components:
        assert isinstance(field, Transport), "transport_fields makes no others"
        field.noise = noise(state[:, :-1])
        state = integrate(field, state, UNIT_TIME)[-1]
    return state[:, :-1], state[:, -1]


def log_normal(z: Tensor) -> Tensor:
    """Return log N(z; 0, 1), (batch,), in nats."""
    return -0.5 * (z.square().sum(dim=1) + z.shape[1] * math.log(2 * math.pi))


def tabular_flow(dim: int, components: int, width: int, layers: int, nonlinearity: str) -> Flow:
    """Return a flow whose components have `layers` hidden layers of `width` units."""
    widths = [dim, *[width] * layers, dim]

    def component() -> Velocity:
        return Velocity([concat_squash(n, m) for n, m in pairwise(widths)], nonlinearity)

    return Flow([component() for _ in range(components)])


def concat_squash(inputs: int, outputs: int) -> ConcatSquash:
    """Return a layer whose weights on the time are initialised like a linear layer of one input: uniform in [-1, 1]."""
    gate, gate_bias, shift = (torch.empty(outputs).uniform_(-1, 1) for _ in range(3))
    return ConcatSquash(nn.Linear(inputs, outputs), gate, gate_bias, shift)


class ImageVelocity(nn.Module):
    """The velocity f(t, z), z of (batch, channels * height * width), of images of `shape`.

    Convolutions with the time as one more channel, and softplus between them.
    """

    def __init__(self, shape: tuple[int, int, int], width: int, layers: int) -> None:
        super().__init__()
        self.shape = shape
        widths = [shape[0], *[width] * layers, shape[0]]
        self.layers = nn.ModuleList(nn.Conv2d(n + 1, m, kernel_size=3, padding=1) for n, m in pairwise(widths))

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        h = z.unflatten(1, self.shape)
        for i, layer in enumerate(self.layers):
            h = nn.functional.softplus(h) if i else h
            h = layer(torch.cat([h, t.to(h).expand(len(h), 1, *self.shape[1:])], dim=1))
        return h.flatten(1)


class ImageFlow(nn.Module):
    """A multi-scale flow for images of (channels, size, size), whose resolution is halved from scale to scale.

    Every scale but the last has `blocks` components before squeezing (four pixels to four channels) and as many after
    it; then half of the channels are final. The last and smallest scale has `blocks` components.
    """

    def __init__(self, channels: int, size: int, scales: int, blocks: int, width: int, layers: int) -> None:
        super().__init__()
        if size % 2 ** (scales - 1):
            raise ValueError(
                f"{scales} scales need a size divisible by {2 ** (scales - 1)}; got {size}: use fewer scales"
            )
        self.scales = nn.ModuleList()
        self.shapes: list[tuple[int, int, int]] = []
        shape = (channels, size, size)
        for scale in range(scales):
            self.shapes.append(shape)
            self.scales.append(_image_fields(blocks, shape, width, layers))
            if scale < scales - 1:
                squeezed = (4 * shape[0], shape[1] // 2, shape[2] // 2)
                self.scales.append(_image_fields(blocks, squeezed, width, layers))
                shape = (squeezed[0] // 2, *squeezed[1:])

    @property
    def components(self) -> int:
        return sum(len(row) for row in self._rows())

    def _rows(self) -> Iterator[nn.ModuleList]:
        for row in self.scales:
            assert isinstance(row, nn.ModuleList)
            yield row

    def log_density(self, x: Tensor, integrate: Integrate, noise: Noise) -> Tensor:
        """Return log p(x), (batch,), in nats, of x, (batch, channels * size * size)."""
        rows, change, log_density = list(self._rows()), x.new_zeros(len(x)), x.new_zeros(len(x))
        for scale, shape in enumerate(self.shapes):
            x, before = push_forward(rows[2 * scale], x, integrate, noise)
            change = change + before
            if scale == len(self.shapes) - 1:
                break
            x = nn.functional.pixel_unshuffle(x.unflatten(1, shape), 2).flatten(1)
            x, after = push_forward(rows[2 * scale + 1], x, integrate, noise)
            change = change + after
            done, x = x.chunk(2, dim=1)  # the first half of the channels
            log_density = log_density + log_normal(done)
        return log_density + log_normal(x) - change


def _image_fields(blocks: int, shape: tuple[int, int, int], width: int, layers: int) -> nn.ModuleList:
    return transport_fields(ImageVelocity(shape, width, layers) for _ in range(blocks))


LOGIT_MARGIN = 1e-6
"""The least distance from 0 and 1, where a logit is infinite."""


def logits(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits of pixels in [0, 1], (batch, dim), and the log-determinant of the map, (batch,)."""
    inner = LOGIT_MARGIN + (1 - 2 * LOGIT_MARGIN) * pixels
    x = inner.log() - (-inner).log1p()
    stretch = -inner.log() - (-inner).log1p() + math.log(1 - 2 * LOGIT_MARGIN)
    return x, stretch.sum(dim=1)


def bits_per_dim(log_density: Tensor, dim: int, levels: int) -> Tensor:
    """Convert log-densities of `dim` pixels in [0, 1], in nats, to bits per pixel for values 1 / levels apart."""
    return (math.log(levels) - log_density / dim) / math.log(2)
