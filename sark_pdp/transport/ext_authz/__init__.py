"""Envoy's external authorization, v3: makes a policy's input of a `CheckRequest`, and a `CheckResponse` of its result.

Input and results are those of opa-envoy-plugin (1.1 and later), so that its policies decide here as they did there.
Every answer is a gRPC OK, and whatever fails is a denial in it: Envoy may be told to let requests through when the call
for an answer fails, but not when the answer denies.
"""

from sark_pdp.transport.ext_authz.answers import Answers
from sark_pdp.transport.ext_authz.method import CHECK, ExtAuthz
from sark_pdp.transport.ext_authz.refusals import Refusals
from sark_pdp.transport.ext_authz.review import ReviewedDecider

__all__ = ["CHECK", "Answers", "ExtAuthz", "Refusals", "ReviewedDecider"]
