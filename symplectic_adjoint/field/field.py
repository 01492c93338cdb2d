"""The vector field f(t, y): the user's function with its parameters, checked, counted, and transposed."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import copy
from functools import partial

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from symplectic_adjoint._torch_internals import hooks_on_all_modules, nodes_made, run_backward, set_grad_enabled
from symplectic_adjoint.errors import Place
from symplectic_adjoint.field.captured import CapturedSteps
from symplectic_adjoint.field.compiled import CompiledSteps
from symplectic_adjoint.field.compiled_graphs import refuse_compiled
from symplectic_adjoint.field.cotangent_scale import CotangentScale, unscaled
from symplectic_adjoint.field.fills import Fills
from symplectic_adjoint.field.finite import multi_index
from symplectic_adjoint.field.first_graph import FirstGraph
from symplectic_adjoint.field.forward_state import ForwardState
from symplectic_adjoint.field.gate import Gate
from symplectic_adjoint.field.graph import edge_to
from symplectic_adjoint.field.handed_out import HandedOut
from symplectic_adjoint.field.kept_calls import refuse_kept
from symplectic_adjoint.field.layout import PackedFunc
from symplectic_adjoint.field.linearization import Linearization, Pull, cut_at, hooks_suspended, pairs_with_graph
from symplectic_adjoint.field.lost_gradients import LostGradientSearch
from symplectic_adjoint.field.off_graph import OffGraph
from symplectic_adjoint.field.parameter_aliases import ParameterAliases
from symplectic_adjoint.field.reach import Reach
from symplectic_adjoint.field.resolution import Resolution
from symplectic_adjoint.field.split_function import active_part
from symplectic_adjoint.field.stage_solver import StageSolver
from symplectic_adjoint.field.time_tensors import TimeTensors
from symplectic_adjoint.field.times import Time
from symplectic_adjoint.field.value_cast import ValueCast

Func = Callable[[Tensor, Tensor], Tensor]


class Field:
    """The vector field f(t, y) with its parameters. It counts its calls itself, never on the user's module.

    like: a tensor like the state. frozen: tensors that func is known to use and that required no gradient when the
    solve began. time_dtype: the dtype in which func is passed t. place: names an entry of the flattened state.
    """

    def __init__(
        self,
        func: Func,
        params: tuple[Tensor, ...],
        like: Tensor,
        *,
        frozen: tuple[Tensor, ...] = (),
        time_dtype: torch.dtype | None = None,
        place: Callable[[int], Place] | None = None,
        forward_state: ForwardState | None = None,
    ):
        self.func = func
        self.shape, self.dtype, self.device = like.shape, like.dtype, like.device
        self.time_dtype = time_dtype or like.dtype.to_real()
        self.times, self.fills = TimeTensors(self.time_dtype, like.device), Fills(like.shape, like.dtype, like.device)
        self.forward_state = forward_state or ForwardState(Reach(func), like.device)
        self.search = LostGradientSearch(params, frozen, self.forward_state)
        self.first_graph = FirstGraph()
        self.handed_out = HandedOut(self.forward_state.reach)
        self.off_graph = OffGraph()
        self.f_calls = 0
        self.calls_on_graph = 0
        """Those of the calls that have a graph of their caller's: not the ones that solve for a stage."""
        self.vjps = 0
        self.compiled: CompiledSteps | None = None
        self.captured: CapturedSteps | None = None
        self.stage_solver: StageSolver | None = None
        self.aliases: ParameterAliases | None = None
        """The aliases that func uses in place of its parameters during a sweep."""
        self.cotangent_scale: CotangentScale | None = None
        """How cotangents are scaled for their VJPs; None if they are not."""
        self._place = place
        self._cast = ValueCast(self.shape, self.dtype, self.device)
        self._first_call: tuple[Tensor, Tensor, Tensor] | None = None
        """t, y and f of the first call, if func's modules have buffers, which func may change."""
        self._copied = self.forward_state.reach.copied
        self._first_time: Time | None = None
        self._first_node = 0
        """The number of nodes that had been made before the last call on the graph."""

    def for_another_pass(self) -> "Field":
        """Return the same field with counts and a search of its own, for a backward pass."""
        other = copy(self)
        other.f_calls = other.calls_on_graph = other.vjps = 0
        other.search = self.search.for_another_pass()
        for name in ("compiled", "captured", "stage_solver"):
            if (code := getattr(self, name)) is not None:
                setattr(other, name, code.for_another_pass())
        return other

    @property
    def params(self) -> tuple[Tensor, ...]:
        """The parameters: those that were known when the solve began, and those found since."""
        return self.search.params

    @property
    def leaves(self) -> tuple[Tensor, ...]:
        """The tensors to which the graphs of f lead: the parameters, or their stand-ins."""
        return tuple(map(self.forward_state.stand_ins.leaf_of, self.params))

    @property
    def program_leaves(self) -> Sequence[Tensor]:
        """The tensors to which the graphs of f in a program lead: the leaves, or the aliases in their place."""
        return self.leaves if self.aliases is None else self.aliases.leaves

    @property
    def leaves_beside_aliases(self) -> Sequence[Tensor]:
        """The leaves that aliases replace, which func may reach in other ways too; empty without aliases."""
        return () if self.aliases is None else self.leaves

    @property
    def resolution(self) -> Resolution | None:
        """The resolution of f's values, if that is coarser than the state's."""
        return self.func.resolution if isinstance(self.func, PackedFunc) else self._cast.resolution

    @property
    def computes_in_float16(self) -> bool:
        """Whether f is known to compute in float16, so that its VJPs need scaled cotangents."""
        dtypes = (self.forward_state.autocast_dtype, *(p.dtype for p in self.params), *self.search.precisions)
        return torch.float16 in dtypes

    @property
    def code(self) -> CompiledSteps | CapturedSteps | None:
        """The code of a step; None if there is none, or if the next call is to be searched or to have a graph."""
        if self.search.due or torch.is_grad_enabled():
            return None
        self._follow_variables()
        return self.captured if self.captured is not None and self.captured.is_open else self.compiled

    @contextmanager
    def using_aliases(self, aliases: ParameterAliases) -> Iterator[None]:
        """Replace the parameters by their aliases in func's modules."""
        self.aliases = aliases
        try:
            with aliases.in_place():
                yield
        finally:
            self.aliases = None

    @contextmanager
    def aliased(self) -> Iterator[None]:
        """Replace the parameters by aliases that autograd has not met before, if all can be replaced."""
        locations = self.forward_state.locate(self.params)
        replaceable = ParameterAliases.can_replace(self.params, locations)
        if not (replaceable and self.forward_state.lock.try_replace()):
            yield
            return
        with self.using_aliases(ParameterAliases(self.params, locations, summing=False)):
            yield

    @contextmanager
    def behind(self, gate: Gate.State) -> Iterator[tuple[Tensor, ...]]:
        """Reinstate the state of the solve for second derivatives: tensors with a history are behind a gate.

        Yields the tensors to which graphs lead, one per parameter.
        """
        gated = {id(x): Gate.apply(gate, x) for x in self.forward_state.stand_ins.originals}
        self.search.gated = True
        with self.forward_state.reinstated(lambda x: gated[id(x)]):
            yield tuple(gated.get(id(p), p) for p in self.params)

    def capturing(self) -> AbstractContextManager[None]:
        """Return a context in which steps use captured programs, if there are any."""
        return nullcontext() if self.captured is None else self.captured.opened()

    def restart(self) -> None:
        """Search the next call again: after a jump f may be a different function."""
        self.search.restart()
        if self.stage_solver is not None:
            self.stage_solver.restart()

    def place(self, index: int) -> Place:
        """Return the place of an entry of the flattened state."""
        return self._place(index) if self._place else Place(None, multi_index(index, self.shape))

    def require_repeatable(self) -> None:
        """Raise UnsupportedCombination if calls cannot be repeated: see ForwardState.require_repeatable.

        Call this at the end of a solve whose backward pass will recompute.
        """
        self.forward_state.require_repeatable(self._repeats_first_call)
        self._first_call = None

    def _repeats_first_call(self) -> bool:
        """Return whether f, at the t and y of the first call, still returns the same value."""
        assert self._first_call is not None
        t, y, k = self._first_call
        with torch.no_grad():
            repeated = self(t, y)
        # The operations are the same; at most the device sums in another order.
        return torch.allclose(repeated, k, rtol=100 * torch.finfo(k.dtype).eps, atol=torch.finfo(k.dtype).eps)

    def __call__(self, t: Time, y: Tensor) -> Tensor:
        """Return f(t, y), a tensor like the state, with a graph only in grad mode.

        Raises TypeError or ValueError if func returns anything else or changes y in place, and LostGradient if this
        call is searched and its graph leads to an unknown tensor.
        """
        self.f_calls += 1
        if torch.is_grad_enabled():
            self.calls_on_graph += 1
            time = self.time(t)
            k = self._on_graph(time, y)
            if self.first_graph.is_at(t):
                self._require_first_graph(k, y, (y, time))
            return k
        if self.search.due:
            self.search.due = False
            return self._call_and_search(t, y)
        if y.requires_grad:  # the caller's y0 in the backward pass: parts of it would seem to have a graph
            y = y.detach()
        k = self.off_graph(self.evaluate, self.time(t), y)
        if torch.is_grad_enabled():  # func enabled it and did not restore it
            torch.set_grad_enabled(False)
        return k.detach() if k.requires_grad else k

    def linearize(self, t: Time, y: Tensor, *, with_time: bool = False, with_value: bool = False) -> Linearization:
        """Return f at (t, y) on a graph of its own, whose leaves are y, t (with_time) and the parameters."""
        self.f_calls += 1
        y, time = y.detach().requires_grad_(), self.time(t)
        if with_time:
            time = time.detach().requires_grad_()
        was = torch.is_grad_enabled()
        searched, self.search.due = self.search.due, False
        set_grad_enabled(True)  # enable_grad() and the like take as long as an operation on a small state
        try:
            with self.forward_state.reads.watch() if searched else nullcontext():
                passed = self._passed(time, y, searched)
                k = self._on_graph(*passed)
        finally:
            set_grad_enabled(was)
        if searched:
            self._note_first_graph(k, t, y, passed)
            self._record_first_call(time.detach(), y.detach(), k.detach())
        elif not with_time and self.first_graph.is_at(t):
            self._require_first_graph(k, y, passed)
        # An edge instead of k: k is as large as a state, and no node keeps it unless its own derivative needs it.
        edge = edge_to(k) if k.requires_grad else None
        value = k.detach() if with_value else None
        return Linearization(edge, (y, time) if with_time else (y,), value, by_params=self.aliases is None)

    def transpose(self, linearization: Linearization, w: Tensor, pull: Pull) -> Sequence[Tensor | None]:
        """Return w^T df/dy, and w^T df/dt if times are differentiated; pull keeps w^T df/dtheta.

        w is like the state. The graph is freed: a linearization can be transposed once.
        """
        self.vjps += 1
        if linearization.edge is None:
            return (None,) * len(linearization.inputs)
        return pull((linearization.edge,), linearization.inputs, (w,), by_params=linearization.by_params)

    def pull(
        self,
        outputs: Sequence[Tensor | GradientEdge],
        inputs: Sequence[Tensor],
        cotangents: Sequence[Tensor],
        *,
        create_graph: bool = False,
    ) -> tuple[Tensor | None, ...]:
        """Return the cotangents of inputs as torch.autograd.grad does, without calling the parameters' hooks.

        cotangents: one like each of outputs. A returned entry is None if no output depends on that input.
        """
        pairs = pairs_with_graph(outputs, cotangents)
        if not pairs:
            return (None,) * len(inputs)
        wanted = [x for x in inputs if x.requires_grad]  # one may have been frozen since the forward pass
        given, inverse = tuple(cotangent for _, cotangent in pairs), None
        if self.cotangent_scale is not None:
            given, inverse = self.cotangent_scale.apply(given)
        try:
            with hooks_suspended(self.params), cut_at(self.search.direct.values()):
                bars = run_backward(
                    tuple(x for x, _ in pairs),
                    given,
                    create_graph or self.search.must_retain,
                    create_graph,
                    tuple(wanted),
                    allow_unreachable=True,
                    accumulate_grad=False,
                )
        except RuntimeError as error:
            refuse_compiled(error)
            raise
        if inverse is not None:
            bars = tuple(unscaled(bars, inverse))
        if len(wanted) == len(inputs):
            return bars
        found = iter(bars)
        return tuple(next(found) if x.requires_grad else None for x in inputs)

    def pull_to_leaves(
        self,
        outputs: Sequence[Tensor | GradientEdge],
        inputs: Sequence[Tensor],
        cotangents: Sequence[Tensor],
        leaves: Sequence[Tensor],
    ) -> tuple[Sequence[Tensor | None], Sequence[Tensor | None]]:
        """Return the cotangents of inputs, and of the leaves in which graphs of f end, as `pull` does.

        Raises LostGradient if the graphs lead to other leaves than before, and one of them is unknown.
        """
        bars = self.pull(outputs, (*inputs, *leaves), cotangents)
        n = len(inputs)
        if self.search.active and self.search.reaches_anew(bars[n:]):
            self.search.search_again(outputs, inputs, self.aliases)
        return bars[:n], bars[n:]

    def time(self, t: Time) -> Tensor:
        """Return t as it is passed to func: a 0-dim tensor of dtype time_dtype on the state's device."""
        return self.times.of(t)

    def adjacent_time(self, t: Time, direction: float) -> Time:
        """Return the number next to t, up or down by the sign of direction, in the dtype that func gets."""
        return self.times.adjacent(t, direction)

    def evaluate(self, t: Tensor, y: Tensor) -> Tensor:
        """Return f(t, y), checked but neither counted nor searched."""
        version = None if y.is_inference() else y._version
        rng = self.forward_state.rng
        self._follow_variables()
        value = self.off_graph.value
        k = value(self.func, t, y) if rng.draws_nothing else rng(partial(value, self.func), t, y)
        if self._copied.is_followed:
            self._copied.require_seen()
        if version is not None and y._version != version:
            raise ValueError("func changed y in place: return a new tensor instead (write y + 1, not y.add_(1))")
        if type(k) is not Tensor or k.shape != self.shape or k.dtype != self.dtype or k.device != self.device:
            return self._cast(k)
        return k

    def _follow_variables(self) -> None:
        if self._copied.is_followed:
            captured = self.captured is not None and self.captured.is_open
            self._copied.follow(compiled=self.compiled is not None, captured=captured)

    def _passed(self, t: Tensor, y: Tensor, searched: bool) -> tuple[Tensor, Tensor]:
        """Return the leaves t and y as func gets them."""
        if searched:
            y = y.clone()  # see _call_and_search
        if hooks_on_all_modules and self.aliases is None:  # FlopCounterMode's need a node, unless VJPs add to .grad
            return t.view_as(t) if t.requires_grad else t, y.view_as(y)
        return t, y

    def _on_graph(self, t: Tensor, y: Tensor) -> Tensor:
        self._first_node = nodes_before = nodes_made()
        with self.search.in_one_thread():
            k = self.evaluate(t, y)
        if k.requires_grad and k.is_leaf and k is not y:
            k = k.view_as(k)  # a graph leads to the leaf, which nothing here holds then
        if self.search.active and k.grad_fn is not None:
            searched = self.search.check_graph(k, y, t, nodes_before, self.aliases)
            if searched and not self.search.adopting:
                refuse_kept(self, k, t, y, self._first_time)
        return k

    def _note_first_graph(self, k: Tensor, t: Time, y: Tensor, passed: tuple[Tensor, ...]) -> None:
        if self._first_time is None and isinstance(t, float):
            self._first_time = t
        if self.search.adopting:
            self.handed_out.note(self._first_node)
        # With its cache, autocast casts a weight once; without, as in the backward pass, for each use.
        if self.search.adopting and self.forward_state.autocast_dtype is None:
            self.first_graph.note(k, t, y, self.search.known(None, *passed))

    def _require_first_graph(self, k: Tensor, y: Tensor, passed: tuple[Tensor, ...]) -> None:
        """Raise FunctionChanged if the graph of k is not that of the first call, with the same parameters trained."""
        search = self.search
        if search.adopting or search.gated or active_part() is not None:  # the first graph is that of the sum
            return
        if not torch.is_autocast_cache_enabled():  # under the caller's autocast: a cast for each use, as above
            return
        differs = self.first_graph.differs(k, y, search.known(self.aliases, *passed))
        if differs and not (search.freezes_changed or search.drops):
            raise self.first_graph.changed()

    def _call_and_search(self, t: Time, y: Tensor) -> Tensor:
        """Return f without a graph, after searching a graph made only for that."""
        time, learns = self.time(t).detach(), self.compiled is not None or self.captured is not None
        with torch.enable_grad():
            passed, k = self.off_graph.searched(
                self._searched,
                time,
                y,
                through_y=self.search.through_state or self.search.adopting or learns,
                wanted=self.search.through_state,
            )
        self._note_first_graph(k, t, y, (passed, time))
        k = k.detach()
        self._record_first_call(time, passed.detach(), k)
        return k

    def _searched(self, t: Tensor, y: Tensor) -> Tensor:
        with self.forward_state.reads.watch():
            return self._on_graph(t, y)

    def _record_first_call(self, t: Tensor, y: Tensor, k: Tensor) -> None:
        if self.compiled is not None:
            self.forward_state.require_compilable(float16=self.computes_in_float16)
        if (code := self.captured or self.compiled) is not None:
            code.counters.learn()
        if self._first_call is None and self.forward_state.has_buffers:
            self._first_call = (t, y, k)
