"""HTTP/JSON: bodies to requests and back, for SARK's API, AuthZEN and OPA's data API; and the listener.

It is imported only where `listen.http` is set. The seam of `transport.handler` has its like here: an `Endpoint` turns
the bytes of a body into those of an answer, and what carries them knows nothing of policies.
"""
