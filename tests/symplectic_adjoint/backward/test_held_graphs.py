"""Graphs of f calls between their call and the step that they belong to, and sums of what they give."""

import math
from types import SimpleNamespace

import pytest
import torch

from symplectic_adjoint.backward.held_graphs import PendingGraphs, StageGraph, first_step_on_graph
from symplectic_adjoint.backward.parameter_sums import Accumulator, PreciseAccumulator


@pytest.mark.parametrize(
    ("graphs", "stages", "total", "first"),
    # ceil(graphs / stages) steps of `total`, and one more.
    [(1, 4, 10, 8), (4, 4, 10, 8), (5, 4, 10, 7), (0, 4, 10, 9), (99, 4, 10, 0), (5, 4, None, 0), (math.inf, 4, 10, 0)],
)
def test_graphs_begin_a_step_early(graphs, stages, total, first):
    assert first_step_on_graph(graphs, stages, total) == first


class TestPending:
    def filled(self, *ks):
        pending = PendingGraphs()
        for name, k in enumerate(ks):
            pending.add(SimpleNamespace(name=name, k=None), k)
        return pending

    def step(self, *ks, stages):
        return SimpleNamespace(ks=list(ks), tableau=SimpleNamespace(stages=stages))

    def test_a_step_takes_the_graphs_of_its_stages_and_leaves_that_of_its_end(self):
        a, b, end = (torch.zeros(1) for _ in range(3))
        pending = self.filled(a, b, end)
        taken = pending.take_step(7, self.step(a, b, end, stages=2))
        assert [(one.graph.name, one.step, one.stage) for one in taken] == [(0, 7, 0), (1, 7, 1)]
        assert taken[1].graph.k is b and len(pending) == 1
        (last,) = pending.take_step(8, self.step(end, stages=2))
        assert last == StageGraph(last.graph, 8, 0) and last.graph.name == 2

    def test_graphs_of_rejected_steps_go_with_their_values(self):
        rejected, k = torch.zeros(1), torch.zeros(1)
        pending = self.filled(rejected)
        del rejected
        pending.add(SimpleNamespace(name=1, k=None), k)
        assert len(pending) == 1

    def test_the_oldest_is_dropped_first(self):
        a, b = torch.zeros(1), torch.zeros(1)
        pending = self.filled(a, b)
        pending.drop_oldest()
        (left,) = pending.take_step(0, self.step(a, b, stages=2))
        assert (left.graph.name, left.stage) == (1, 1)
        pending = self.filled(a, b)
        pending.clear()
        assert len(pending) == 0


class TestSums:
    def test_weighted_gradients_are_added_in_place_and_none_is_nothing(self):
        one, other = torch.tensor([1.0]), torch.tensor([10.0])
        sums = Accumulator(3)
        sums.add([one, None, None], weight=2.0)
        first = sums.total[0]
        sums.add([other, one, None], weight=3.0)
        assert [None if x is None else x.item() for x in sums.total] == [32.0, 3.0, None]
        assert sums.total[0] is first and one.item() == 1.0 and other.item() == 10.0

    def test_the_weight_is_one_unless_given(self):
        sums = Accumulator(1)
        sums.add([torch.tensor([4.0])])
        sums.add([torch.tensor([4.0])])
        assert sums.total[0].item() == 8.0

    @pytest.mark.parametrize("make", [lambda: Accumulator(1), lambda: PreciseAccumulator("compensated", 1)])
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_is_summed_in_float32(self, make, dtype):
        sums = make()
        for _ in range(2):
            sums.add([torch.ones(1, dtype=dtype)])
        assert sums.total[0].dtype == torch.float32 and sums.total[0].item() == 2.0

    def test_precise_sums_skip_what_is_none(self):
        sums = PreciseAccumulator("float64", 2)
        sums.add([torch.ones(1), None])
        sums.add([torch.ones(1), None])
        assert sums.total[0].item() == 2.0 and sums.total[0].dtype == torch.float64 and sums.total[1] is None
