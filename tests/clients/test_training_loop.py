"""A training loop in the style of Lightning: hooks, validation between steps, a method of the module as func."""

import torch
from torch import nn

from tests.clients.gradients import gradients_of

T = torch.linspace(0.0, 1.0, 4, dtype=torch.float64)


class LitModel(nn.Module):
    def __init__(self, odeint):
        super().__init__()
        torch.manual_seed(0)
        self.odeint = odeint
        self.net, self.norm = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 3)), nn.LayerNorm(3)
        self.head, self.dropout = nn.Linear(3, 2), nn.Dropout(0.5)
        self.logged, self.global_step, self.trainer = {}, 0, None

    def vector_field(self, t, y):
        return self.net(self.norm(y))

    def by_a_method(self, x):
        return self.odeint(self.vector_field, x, T)[-1]

    def by_a_nested_function(self, x):
        """Solve as libraries do, in code that users cannot edit: the closure holds the module."""

        def f(t, y):
            return self.net(self.norm(y)) * t.cos()

        return self.odeint(f, x, T)[-1]

    def by_a_conditioned_function(self, x):
        """Solve with a condition that is computed from the same module's parameters."""
        context = self.head(x).mean(1, keepdim=True)
        return self.odeint(lambda t, y: self.net(self.norm(y)) + context * y, x, T)[-1]

    def training_step(self, batch, transport):
        x, target = batch
        loss = (self.head(transport(self, x)) - target).square().mean()
        self.log("loss", loss)
        return loss

    def log(self, name, value):
        self.logged[name] = value.detach()


class Trainer:
    """It sets attributes of the model between the forward and the backward pass, as trainers do."""

    def fit(self, model, transport, batches):
        model.trainer = self
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for batch in batches:
            model.train()
            loss = model.training_step(batch, transport)
            model.global_step += 1
            optimizer.zero_grad()
            loss.backward()
            self.largest = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            model.eval()
            with torch.no_grad():
                model.training_step(batch, transport)
        return loss.detach()


def batches(count=3):
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(5, 3, generator=generator), torch.randn(5, 2, generator=generator)) for _ in range(count)]


def fitted(transport):
    def train(odeint):
        model = LitModel(odeint)
        loss = Trainer().fit(model, transport, batches())
        return {"loss": loss, "net": model.net[0].weight, **gradients_of(model)}

    return train


def test_func_is_a_method(solvers):
    solvers.check(fitted(LitModel.by_a_method))


def test_func_is_a_nested_function_whose_closure_holds_the_module(solvers):
    solvers.check(fitted(LitModel.by_a_nested_function))


def test_func_is_a_lambda_with_a_computed_condition(solvers):
    solvers.check(fitted(LitModel.by_a_conditioned_function))


def test_a_validation_solve_between_the_passes(solvers):
    """Sanity checks and callbacks evaluate the model in eval mode before the training step's backward pass."""

    def train(odeint):
        model = LitModel(odeint).train()
        loss = model.training_step(batches(1)[0], LitModel.by_a_method)
        model.eval()
        with torch.no_grad():
            model.training_step(batches(2)[1], LitModel.by_a_method)
        loss.backward()
        return gradients_of(model)

    solvers.check(train)
