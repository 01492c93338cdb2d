"""The probes, one module per family."""

from symplectic_bench.features.probes.autodiff import AUTODIFF
from symplectic_bench.features.probes.gradients import GRADIENTS
from symplectic_bench.features.probes.safety import SAFETY
from symplectic_bench.features.probes.states import STATES
from symplectic_bench.features.probes.steps import STEPS
from symplectic_bench.features.probes.times import EVENTS, TIMES

FAMILIES = (GRADIENTS, TIMES, EVENTS, STATES, STEPS, AUTODIFF, SAFETY)
PROBES = {probe.name: probe for family in FAMILIES for probe in family.probes}
