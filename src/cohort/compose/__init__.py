"""The one place that chooses concrete classes and reads the environment."""

from cohort.compose.control import Control, Health, build_control

__all__ = ["Control", "Health", "build_control"]
