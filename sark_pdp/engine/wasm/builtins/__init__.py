"""The built-ins that OPA leaves to the host, one module per Rego namespace."""
