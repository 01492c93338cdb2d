"""Classify images of digits, 8 x 8 pixels, by a network whose middle is an ODE.

    python -m symplectic_bench.examples.classifier

A convolution makes channels of an image, an ODE with a convolutional field transforms them from t = 0 to 1, and a
linear layer reads the class from their means (after Chen et al., Neural Ordinary Differential Equations, 2018). The ODE
is one layer of an ordinary model: nothing else in the training knows of it.
"""

from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from symplectic_adjoint import NeuralODE
from symplectic_bench.examples.command_line import Report, silent
from symplectic_bench.examples.figure import Figure, draw_losses_and_images, run_and_draw

TESTED = 400


class Field(nn.Module):
    """A convolutional field on channels, (batch, channels, 8, 8), with time as one channel more."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels + 1, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        time = t.expand(len(x), 1, *x.shape[2:])
        return self.second(torch.tanh(self.first(torch.cat([x, time], dim=1))))


class Classifier(nn.Module):
    """Images, (batch, 1, 8, 8), to logits, (batch, 10)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, channels, 3, padding=1)
        self.ode = NeuralODE(Field(channels), rtol=1e-3, atol=1e-3)
        self.head = nn.Linear(channels * 4, 10)

    def forward(self, images: Tensor) -> Tensor:
        end = self.ode(self.stem(images), torch.tensor([0.0, 1.0]))[-1]
        return self.head(nn.functional.avg_pool2d(end, 4).flatten(1))


@dataclass(frozen=True)
class Trained:
    """The losses, the share of test images that are classified rightly, and some of them with their classes."""

    losses: list[float]
    accuracy: float
    images: Tensor
    classes: Tensor


def train(*, iterations: int, seed: int = 0, batch: int = 64, channels: int = 16, report: Report = silent) -> Trained:
    """Train on all digits but the last TESTED, on which it is then tested."""
    torch.manual_seed(seed)
    pixels, targets = load_digits(return_X_y=True)
    images, labels = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16, torch.tensor(targets)
    model = Classifier(channels)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for iteration in range(1, iterations + 1):
        chosen = torch.randint(len(images) - TESTED, (batch,))
        loss = cross_entropy(model(images[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        report(iteration, losses[-1])
    with torch.no_grad():
        classes = model(images[-TESTED:]).argmax(dim=1)
    accuracy = (classes == labels[-TESTED:]).double().mean().item()
    return Trained(losses, accuracy, images[-24:, 0], classes[-24:])


def draw(figure: Figure, trained: Trained) -> None:
    """Draw the losses, and test images with the classes found."""
    draw_losses_and_images(figure, trained.losses, "cross entropy", trained.images, trained.classes.tolist())
    figure.suptitle(f"{100 * trained.accuracy:.1f} % of {TESTED} test images are classified rightly")


if __name__ == "__main__":
    run_and_draw(train, draw, __doc__, name="classifier", iterations=200)
