"""CUDA graphs of the user's own around a solve with fixed steps and its gradient."""

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from symplectic_adjoint.methods.registry import EXPLICIT_METHODS
from tests.gpu.problems import (
    DEVICE,
    EXACT,
    FIXED,
    ON_CARD,
    REVERSED,
    Mlp,
    T,
    gradients,
    keywords_of,
    loss_of,
    start,
    worst,
)

GRADIENTS = [*EXACT, *REVERSED, "continuous"]
EQUAL = 1e-5
"""Relative difference of float32 sums that cuBLAS may form in another order while it is captured."""
pytestmark = [
    pytest.mark.usefixtures("card"),
    pytest.mark.filterwarnings("ignore:The CUDA Graph is empty"),  # of a solve that was refused
]


def warmed_up(work):
    """Run the work on a stream of its own, as torch asks before a capture."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            work()
    torch.cuda.current_stream().wait_stream(side)


def captured(work):
    """Return the graph of the work, and what it returned, which every replay writes."""
    warmed_up(work)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = work()
    return graph, results


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_graph_of_a_solve_and_its_gradient(table, gradient):
    """Replayed with another y0 and with other parameters, and without a wait in the capture."""
    net, y0, keywords = Mlp(), start(), keywords_of(gradient, options=FIXED)
    graph, results = captured(lambda: gradients(net, y0, **keywords))
    for seed in (2, 3):
        with torch.no_grad():
            y0.copy_(start(seed=seed))
            for p in net.parameters():
                p.mul_(0.9)
        graph.replay()
        error = worst(results, gradients(net, y0, **keywords))
        table.at_most("user's capture", "graph of solve and gradient: error", error, EQUAL)


@pytest.mark.parametrize("method", EXPLICIT_METHODS)
def test_a_graph_with_every_method(table, method):
    net, y0, keywords = Mlp(dtype=torch.float64), start(dtype=torch.float64), keywords_of("symplectic", method)
    keywords["options"] = FIXED
    graph, results = captured(lambda: gradients(net, y0, **keywords))
    graph.replay()
    error = worst(results, gradients(net, y0, **keywords))
    table.at_most("user's capture", "every method, float64: error", error, 1e-13)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("gradient", [*EXACT, *REVERSED])
def test_a_graph_under_autocast(table, gradient, dtype):
    net, y0, keywords = Mlp(), start(), keywords_of(gradient, options=FIXED)

    def work():
        with torch.autocast(DEVICE.type, dtype=dtype, cache_enabled=False):
            ys = sa.odeint(net, y0, T, **keywords)
        return torch.autograd.grad(loss_of(ys), [y0, *net.parameters()])

    graph, results = captured(work)
    graph.replay()
    error = worst(results, work())
    name = f"autocast {dtype}: error".replace("torch.", "")
    table.at_most("user's capture", name, error, 4 * torch.finfo(dtype).eps)


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = Mlp()

    def forward(self, t, state):
        y, area = state
        k = self.net(t, y)
        return k, k.square().sum(-1) - area


@pytest.mark.parametrize("gradient", EXACT)
def test_a_graph_with_a_tuple_and_outputs_at_repeated_times(table, gradient):
    func, y0, area = Pair(), start(), torch.zeros(32, device=DEVICE)
    times = T.repeat_interleave(2)

    def work():
        ys, areas = sa.odeint(func, (y0, area), times, **keywords_of(gradient, options=FIXED))
        return torch.autograd.grad(loss_of(ys) + areas.mean(), [y0, *func.parameters()])

    graph, results = captured(work)
    graph.replay()
    table.at_most("user's capture", "tuple, repeated times: error", worst(results, work()), EQUAL)


class Layer(nn.Module):
    """A NeuralODE with its own times, which are in host memory."""

    def __init__(self, gradient):
        super().__init__()
        self.ode = sa.NeuralODE(Mlp(), **keywords_of(gradient, options=FIXED))

    def forward(self, y0):
        return self.ode(y0, T)[-1]


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_make_graphed_callables(table, gradient):
    layer, y0 = Layer(gradient), start()
    graphed = torch.cuda.make_graphed_callables(layer, (start(seed=5),))
    bars = torch.autograd.grad(loss_of(graphed(y0)), [y0, *layer.parameters()])
    plain = Layer(gradient)
    plain.load_state_dict(layer.state_dict())
    exact = torch.autograd.grad(loss_of(plain(y0)), [y0, *plain.parameters()])
    table.at_most("user's capture", "make_graphed_callables: error", worst(bars, exact), EQUAL)


@pytest.mark.parametrize("gradient", [*EXACT, *REVERSED])
def test_a_captured_training_step(table, gradient):
    """Ten steps of Adam in a graph, and ten without one, from the same parameters."""
    losses = {}
    for in_graph in (False, True):
        net, y0, keywords = Mlp(), start(), keywords_of(gradient, options=FIXED)
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, capturable=ON_CARD)

        def step(net=net, y0=y0, optimizer=optimizer, keywords=keywords):
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(sa.odeint(net, y0.detach(), T, **keywords))
            loss.backward()
            optimizer.step()
            return loss.detach()

        warmed_up(step)
        found = []
        if in_graph:
            graph = torch.cuda.CUDAGraph()
            optimizer.zero_grad(set_to_none=True)
            with torch.cuda.graph(graph):
                loss = step()
        for _ in range(10):
            if in_graph:
                graph.replay()
                found.append(loss.item())
            else:
                found.append(step().item())
        losses[in_graph] = torch.tensor(found)
    error = float(((losses[True] - losses[False]) / losses[False]).abs().max())
    table.at_most("user's capture", "training step: loss, ten steps", error, 1e-4)
    assert losses[True][-1] < losses[True][0]


def refused(match, **keywords):
    """Assert that a capture is refused, and that the card can be used and captured afterwards."""
    net, y0 = keywords.pop("net", None) or Mlp(), start()
    t, gradient = keywords.pop("t", T), keywords.pop("gradient", "symplectic")
    graph = torch.cuda.CUDAGraph()
    keywords = {"options": FIXED} | keywords
    with pytest.raises(sa.UnsupportedCombination, match=match), torch.cuda.graph(graph):
        sa.odeint(net, y0, t, **keywords_of(gradient, **keywords))
    assert torch.randn(3, device=DEVICE).isfinite().all()
    other = Mlp()  # moved to the card before the capture
    graph, results = captured(lambda: gradients(other, y0, **keywords_of("symplectic", options=FIXED)))
    graph.replay()
    assert all(x.isfinite().all() for x in results)


def test_what_cannot_be_captured_is_an_error_that_leaves_the_card_usable():
    refused("adaptive steps", options={}, method="dopri5")
    refused("t lies on cuda", t=T.to(DEVICE))
    refused("a t that requires a gradient", t=T.clone().requires_grad_())
    refused("event_fn", event_fn=lambda t, y: y.sum(), t=T[:2])
    refused("option 'stop'", options={**FIXED, "stop": lambda t, y: False})
    refused("offload='cpu'", gradient=sa.Symplectic(offload="cpu"))
    refused("offload='disk'", gradient=sa.Symplectic(offload="disk"))
    refused("memory is free", gradient="auto")


class Noisy(Mlp):
    def forward(self, t, y):
        return nn.functional.dropout(super().forward(t, y), 0.5)


def test_a_func_that_draws_is_refused_and_the_generator_works():
    refused("func draws random numbers", net=Noisy())
    net, y0 = Noisy(), start()
    torch.manual_seed(3)
    first = gradients(net, y0, **keywords_of("symplectic", options=FIXED))
    torch.manual_seed(3)
    again = gradients(net, y0, **keywords_of("backprop", options=FIXED))
    assert worst(first, again) < 1e-5  # dropout is replayed as ever, outside of a capture


class Reads(Mlp):
    def forward(self, t, y):
        return super().forward(t, y) * (1.0 if y.sum().item() > 0 else 2.0)


class Copies(Mlp):
    def forward(self, t, y):
        return super().forward(t, y) + torch.ones(16).to(y.device)


def test_a_func_that_reads_is_refused_before_torch_gives_up_the_capture():
    """By itself torch would leave the process without random numbers."""
    refused("func makes the host read or write the card", net=Reads())
    refused("func makes the host read or write the card", net=Copies())


def test_auto_with_a_budget_works_once_it_has_measured(table):
    net, y0, keywords = Mlp(), start(), {"gradient": "auto", "memory_budget": "1 MiB", "options": FIXED}
    graph, results = captured(lambda: gradients(net, y0, **keywords))
    graph.replay()
    table.at_most("user's capture", "auto: error", worst(results, gradients(net, y0, **keywords)), EQUAL)
