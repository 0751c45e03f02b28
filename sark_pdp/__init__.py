"""SARK PDP: a policy decision point that runs beside each workload."""
