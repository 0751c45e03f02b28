"""Loads the shared fixtures: each `fix_NAME.py` beside this file."""

from pathlib import Path

import hypothesis

pytest_plugins = sorted(f"tests.{file.stem}" for file in Path(__file__).parent.glob("fix_*.py"))

# A property is no promise about time: a busy machine must not fail one, nor for how long its examples take to make.
hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("untimed")
