"""Turns bytes on the wire into requests and decisions into bytes: gRPC, Envoy's ext_authz, administration, health.

The only place where errors become status codes. `handler` is the seam: what is above it knows methods and messages,
what is below it carries them.
"""
