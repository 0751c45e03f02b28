"""Loads the shared fixtures: each `fix_NAME.py` beside this file."""

from pathlib import Path

import hypothesis
import pytest

pytest_plugins = sorted(f"tests.{file.stem}" for file in Path(__file__).parent.glob("fix_*.py"))

# A property is no promise about time: a busy machine must not fail one, nor for how long its examples take to make.
hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
# The same examples each time: `make test` decides about a change, and chance must not. Without it pytest looks further.
hypothesis.settings.register_profile("repeatable", hypothesis.settings.get_profile("untimed"), derandomize=True)
hypothesis.settings.load_profile("untimed")


def pytest_configure(config: pytest.Config) -> None:
    """Makes the marker known of what `make test` runs once for each carrier."""
    config.addinivalue_line("markers", "carried: asks a process over the carrier that TEST_TRANSPORT names")
