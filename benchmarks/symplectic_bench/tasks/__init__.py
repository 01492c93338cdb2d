"""The training tasks, by name."""

from symplectic_bench.tasks.classify import CLASSIFY
from symplectic_bench.tasks.density import DENSITY
from symplectic_bench.tasks.images import IMAGES
from symplectic_bench.tasks.physics import PHYSICS
from symplectic_bench.tasks.robertson import ROBERTSON
from symplectic_bench.tasks.spiral import SPIRAL
from symplectic_bench.tasks.task import Task, TaskFamily
from symplectic_bench.tasks.three_body import THREE_BODY

__all__ = ["TASKS", "Task", "TaskFamily"]

TASKS = {family.name: family for family in (DENSITY, IMAGES, CLASSIFY, PHYSICS, THREE_BODY, SPIRAL, ROBERTSON)}
