"""Puts the parts together that answer Envoy. `app` alone imports it."""

import logging
from typing import TYPE_CHECKING

from sark_pdp.decision.service import DecisionService
from sark_pdp.settings import Settings
from sark_pdp.transport.ext_authz import Answers, ExtAuthz, Refusals

if TYPE_CHECKING:
    from sark_pdp.transport.ext_authz.bodies import Messages
    from sark_pdp.transport.principal.principals import Principals

_log = logging.getLogger(__name__)


def method(settings: Settings, service: DecisionService, answers: Answers, principals: "Principals | None") -> ExtAuthz:
    """What answers `Authorization/Check`; raises StartError where the descriptors of gRPC are not usable."""
    policy, limits = settings.policy, settings.limits
    messages: Messages | None = None
    if policy.ext_authz_proto_descriptor is not None:
        from sark_pdp.transport.ext_authz.grpc_bodies import MessageTypes

        messages = MessageTypes(policy.ext_authz_proto_descriptor)
    if policy.ext_authz_dry_run:
        _log.warning("policy.ext_authz_dry_run is on: every request of Envoy is let through")
    return ExtAuthz(
        service,
        answers,
        policy.ext_authz_entrypoint,
        max_input_bytes=limits.max_input_bytes,
        max_depth=limits.max_depth,
        max_values=limits.max_values,
        allowed=policy.ext_authz_allowed,
        refusals=Refusals(policy.ext_authz_on_failure, dry_run=policy.ext_authz_dry_run),
        parse_body=policy.ext_authz_parse_body,
        messages=messages,
        principals=principals,
    )
