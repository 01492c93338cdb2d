"""Tensors that the field never reads change between the passes: a teacher, a counter, a metric, another network."""

import torch
from torch import nn

from tests.clients.gradients import gradients_of

T = torch.linspace(0.0, 1.0, 5, dtype=torch.float64)


class Distillation(nn.Module):
    """One module owns the student's field, a teacher that follows it, metrics, and a critic with an optimizer."""

    def __init__(self, odeint):
        super().__init__()
        torch.manual_seed(0)
        self.odeint = odeint
        self.student, self.teacher, self.critic = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 1)
        self.teacher.requires_grad_(False)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.register_buffer("mean_loss", torch.zeros(()))

    def forward(self, t, y):
        return torch.tanh(self.student(y))

    @torch.no_grad()
    def follow(self, loss):
        for slow, fast in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            slow.mul_(0.9).add_(fast, alpha=0.1)
        self.steps += 1
        self.mean_loss.lerp_(loss, 0.1)


def start():
    return torch.randn(5, 3, generator=torch.Generator().manual_seed(1))


def test_a_teacher_and_metrics_are_updated_before_the_backward_pass(solvers):
    def train(odeint):
        model = Distillation(odeint)
        y = odeint(model, start(), T)[-1]
        loss = (y - torch.tanh(model.teacher(start()))).square().sum()
        model.follow(loss.detach())
        loss.backward()
        return gradients_of(model.student)

    solvers.check(train)


def test_an_optimizer_step_on_another_sub_network(solvers):
    def train(odeint):
        model = Distillation(odeint)
        y = odeint(model, start(), T)[-1]
        optimizer = torch.optim.SGD(model.critic.parameters(), lr=0.1)
        model.critic(y.detach()).square().sum().backward()
        optimizer.step()
        y.square().sum().backward()
        return gradients_of(model)

    solvers.check(train)


def test_several_training_steps_with_weight_averaging(solvers):
    def train(odeint):
        model = Distillation(odeint)
        average = torch.optim.swa_utils.AveragedModel(model)
        optimizer = torch.optim.SGD(model.student.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            loss = odeint(model, start(), T)[-1].square().sum()
            average.update_parameters(model)
            loss.backward()
            optimizer.step()
        return {
            **gradients_of(model.student),
            "weight": model.student.weight,
            "averaged": average.module.student.weight,
        }

    solvers.check(train)
