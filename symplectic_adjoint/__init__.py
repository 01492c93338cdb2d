"""Exact gradients of neural ODEs with minimal memory."""

from importlib.metadata import PackageNotFoundError as _NotInstalled
from importlib.metadata import version as _version

from symplectic_adjoint.api import Solution as Solution
from symplectic_adjoint.api import odeint as odeint
from symplectic_adjoint.api import solve as solve
from symplectic_adjoint.backward.strategy import Strategy as Strategy
from symplectic_adjoint.defaults import set_default as set_default
from symplectic_adjoint.dense import DenseSolution as DenseSolution
from symplectic_adjoint.dense import odeint_dense as odeint_dense
from symplectic_adjoint.diagnostics.advise import Advice as Advice
from symplectic_adjoint.diagnostics.advise import PredictedCost as PredictedCost
from symplectic_adjoint.diagnostics.advise import advise as advise
from symplectic_adjoint.diagnostics.check_gradient import GradientCheck as GradientCheck
from symplectic_adjoint.diagnostics.check_gradient import check_gradient as check_gradient
from symplectic_adjoint.diagnostics.compare_gradients import GradientComparison as GradientComparison
from symplectic_adjoint.diagnostics.compare_gradients import GradientCost as GradientCost
from symplectic_adjoint.diagnostics.compare_gradients import compare_gradients as compare_gradients
from symplectic_adjoint.diagnostics.measure_memory import MemoryUse as MemoryUse
from symplectic_adjoint.diagnostics.measure_memory import measure_memory as measure_memory
from symplectic_adjoint.drop_in import odeint_adjoint as odeint_adjoint
from symplectic_adjoint.drop_in import odeint_checkpoint as odeint_checkpoint
from symplectic_adjoint.drop_in import odeint_event as odeint_event
from symplectic_adjoint.drop_in import odeint_onecheckpoint as odeint_onecheckpoint
from symplectic_adjoint.drop_in import odeint_symplectic_adjoint as odeint_symplectic_adjoint
from symplectic_adjoint.errors import BudgetTooSmall as BudgetTooSmall
from symplectic_adjoint.errors import CompilerNotFound as CompilerNotFound
from symplectic_adjoint.errors import EventNotFound as EventNotFound
from symplectic_adjoint.errors import FunctionChanged as FunctionChanged
from symplectic_adjoint.errors import IgnoredArgumentWarning as IgnoredArgumentWarning
from symplectic_adjoint.errors import InvalidTableau as InvalidTableau
from symplectic_adjoint.errors import LostGradient as LostGradient
from symplectic_adjoint.errors import NoiseWarning as NoiseWarning
from symplectic_adjoint.errors import NonFiniteError as NonFiniteError
from symplectic_adjoint.errors import NotCapturable as NotCapturable
from symplectic_adjoint.errors import NotReplacedWarning as NotReplacedWarning
from symplectic_adjoint.errors import OffloadError as OffloadError
from symplectic_adjoint.errors import RecordedAnewWarning as RecordedAnewWarning
from symplectic_adjoint.errors import ResolutionWarning as ResolutionWarning
from symplectic_adjoint.errors import ReversalError as ReversalError
from symplectic_adjoint.errors import SolverError as SolverError
from symplectic_adjoint.errors import StageNotSolved as StageNotSolved
from symplectic_adjoint.errors import StepControlOffWarning as StepControlOffWarning
from symplectic_adjoint.errors import StepSizeUnderflow as StepSizeUnderflow
from symplectic_adjoint.errors import StiffnessWarning as StiffnessWarning
from symplectic_adjoint.errors import TooManySteps as TooManySteps
from symplectic_adjoint.errors import UnsupportedCombination as UnsupportedCombination
from symplectic_adjoint.gradients import GRADIENTS as GRADIENTS
from symplectic_adjoint.gradients.aca import Aca as Aca
from symplectic_adjoint.gradients.auto import Auto as Auto
from symplectic_adjoint.gradients.backprop import Backprop as Backprop
from symplectic_adjoint.gradients.baseline import Baseline as Baseline
from symplectic_adjoint.gradients.continuous import Continuous as Continuous
from symplectic_adjoint.gradients.mali import Mali as Mali
from symplectic_adjoint.gradients.reversible import Reversible as Reversible
from symplectic_adjoint.gradients.revolve import Revolve as Revolve
from symplectic_adjoint.gradients.symplectic import Symplectic as Symplectic
from symplectic_adjoint.memory.allocator import Traffic as Traffic
from symplectic_adjoint.memory.allocator import watch_memory as watch_memory
from symplectic_adjoint.methods.interpolant import Interpolant as Interpolant
from symplectic_adjoint.methods.registry import METHODS as METHODS
from symplectic_adjoint.methods.tableau import ButcherTableau as ButcherTableau
from symplectic_adjoint.module import NeuralODE as NeuralODE
from symplectic_adjoint.replacement.modules import replace_torchdiffeq as replace_torchdiffeq
from symplectic_adjoint.solve.grid import Grid as Grid
from symplectic_adjoint.solve.stats import Choice as Choice
from symplectic_adjoint.solve.stats import Stats as Stats

try:
    __version__ = _version("symplectic_adjoint")
except _NotInstalled:  # imported from a source tree
    __version__ = "0.0.0"
