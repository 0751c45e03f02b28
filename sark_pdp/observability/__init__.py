"""Metrics, logs and the HTTP listener for probes."""
