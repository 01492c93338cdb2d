"""The tasks that there are, by name."""

from benchmarks.tasks.classify import CLASSIFY
from benchmarks.tasks.density import DENSITY
from benchmarks.tasks.images import IMAGES
from benchmarks.tasks.physics import PHYSICS
from benchmarks.tasks.robertson import ROBERTSON
from benchmarks.tasks.spiral import SPIRAL
from benchmarks.tasks.task import Task, TaskFamily
from benchmarks.tasks.three_body import THREE_BODY

__all__ = ["TASKS", "Task", "TaskFamily"]

TASKS = {family.name: family for family in (DENSITY, IMAGES, CLASSIFY, PHYSICS, THREE_BODY, SPIRAL, ROBERTSON)}
