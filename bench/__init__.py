"""Measurements: load runs beside other decision points, the engine beside OPA, memory. `python -m bench --help`."""
