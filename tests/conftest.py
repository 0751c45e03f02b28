"""Loads the shared fixtures: each `fix_NAME.py` beside this file."""

from pathlib import Path

pytest_plugins = sorted(f"tests.{file.stem}" for file in Path(__file__).parent.glob("fix_*.py"))
