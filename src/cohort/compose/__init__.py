"""The one place that chooses concrete classes and reads the environment."""

from cohort.compose.control import Control, build_control
from cohort.compose.health import Health
from cohort.compose.kernel import Kernel, build_kernel

__all__ = ["Control", "Health", "Kernel", "build_control", "build_kernel"]
