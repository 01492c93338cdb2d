"""A convolutional network as the field on images, as in classifiers with an ODE block.

Chen, Rubanova, Bettencourt and Duvenaud, Neural ordinary differential equations, NeurIPS 2018, section 3.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import conv2d, tanh

from symplectic_bench.problems.formula import Arithmetic, Array, Held
from symplectic_bench.problems.problem import Family, MeanSquare, Problem, Source, output_times


class ConvolutionField(nn.Module):
    """y' = C_2 tanh(C_1 y + t u) on images (channels, points, points), flattened in the state.

    C_1 and C_2 are convolutions with 3 x 3 kernels, biases and zeros around the image; u has a number per channel.
    """

    def __init__(self, time_weight: Tensor, kernels: Sequence[Tensor], biases: Sequence[Tensor], points: int) -> None:
        super().__init__()
        self.time_weight = nn.Parameter(time_weight)
        self.kernels, self.biases = nn.ParameterList(kernels), nn.ParameterList(biases)
        self.points = points

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        image = y.view(len(y), -1, self.points, self.points)
        hidden = conv2d(image, self.kernels[0], self.biases[0], padding=1)
        if isinstance(t, Tensor) and t.ndim:  # a time for each sample; TorchDiffEqPack may pass a plain number
            t = t.view(-1, 1, 1, 1)
        hidden = tanh(hidden + t * self.time_weight[:, None, None])
        return conv2d(hidden, self.kernels[1], self.biases[1], padding=1).flatten(1)


def formula(ops: Arithmetic, theta: Sequence[Array], held: Held, t: Array, y: Array) -> Array:
    """Evaluate the field in any arithmetic: each convolution as nine products with shifted images."""
    time_weight, first, second, first_bias, second_bias = theta
    points, batch = held["points"], y.shape[0]
    image = y.reshape(batch, -1, points, points).swapaxes(1, 2).swapaxes(2, 3)  # channels last
    hidden = ops.tanh(_convolve(ops, image, first) + first_bias + time_weight * t)
    found = _convolve(ops, hidden, second) + second_bias
    return found.swapaxes(2, 3).swapaxes(1, 2).reshape(batch, -1)


def _convolve(ops: Arithmetic, image: Array, kernel: Array) -> Array:
    rows = [_shifted(ops, image, i - 1, axis=1) for i in range(3)]
    return sum(_shifted(ops, rows[i], j - 1, axis=2) @ kernel[:, :, i, j].T for i in range(3) for j in range(3))


def _shifted(ops: Arithmetic, image: Array, by: int, axis: int) -> Array:
    """Return the image moved by one point along an axis, or not at all, with zeros where nothing moves in."""
    if by == 0:
        return image
    ends = (slice(None),) * axis
    kept, edge = (slice(1, None), slice(-1, None)) if by > 0 else (slice(None, -1), slice(None, 1))
    parts = [image[(*ends, kept)], 0 * image[(*ends, edge)]]
    return ops.concatenate(parts if by > 0 else parts[::-1], axis=axis)


def draw(
    source: Source,
    batch: int,
    *,
    channels: int = 2,
    hidden: int = 4,
    points: int = 4,
    end: float = 1.0,
    outputs: int = 1,
) -> Problem:
    """Draw kernels for images of points x points with `channels` channels, and `hidden` channels between."""
    kernels = [source.normal(m, n, 3, 3, std=1 / (9 * n) ** 0.5) for n, m in ((channels, hidden), (hidden, channels))]
    biases = [source.normal(m, std=0.1) for m in (hidden, channels)]
    func = ConvolutionField(source.normal(hidden), kernels, biases, points)
    y0, target = source.normal(batch, channels * points**2), source.normal(batch, channels * points**2)
    return Problem(func, y0, output_times(end, outputs), MeanSquare(target))


CONVOLUTION = Family("convolution", draw, formula)
