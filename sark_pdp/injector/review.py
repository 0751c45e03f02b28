"""What the API server asks and is told: AdmissionReview of admission.k8s.io/v1, and of a pod what is looked at here.

https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#webhook-request-and-response
"""

import base64
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from sark_pdp.errors import SarkError

_VERSION: Final = "admission.k8s.io/v1"
_KIND: Final = "AdmissionReview"
_LONGEST_WARNING: Final = 250
"""Characters: clients get no longer ones from the API server."""


class InvalidReviewError(SarkError):
    """What came is no question of an API server that is understood here."""


class EnvVar(Struct):
    """One variable of a container; where its value comes from does not matter here."""

    name: str
    value: str | None = None


class Mount(Struct, rename="camel"):
    """Where a container sees a volume."""

    name: str
    mount_path: str


class Port(Struct, rename="camel"):
    """One that a container declares."""

    container_port: int
    protocol: str = "TCP"


class Container(Struct, rename="camel"):
    """One container, whether it is an init container or not."""

    name: str
    restart_policy: str | None = None
    env: list[EnvVar] | None = None
    volume_mounts: list[Mount] | None = None
    ports: list[Port] | None = None


class Volume(Struct):
    """One volume; of what kind does not matter here."""

    name: str


class OperatingSystem(Struct):
    """Of the node that a pod wants."""

    name: str


class Owner(Struct, rename="camel"):
    """What made the pod."""

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool | None = None


class PodSpec(Struct, rename="camel"):
    """What is asked for."""

    containers: list[Container]
    init_containers: list[Container] | None = None
    volumes: list[Volume] | None = None
    host_network: bool | None = None
    os: OperatingSystem | None = None
    node_selector: dict[str, str] | None = None
    restart_policy: str | None = None
    termination_grace_period_seconds: int | None = None


class Metadata(Struct, rename="camel"):
    """Who it is. A pod that a controller creates has a `generate_name` and no name yet."""

    name: str | None = None
    generate_name: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: list[Owner] | None = None


class Pod(Struct):
    """What is to be created, as far as it matters here."""

    spec: PodSpec
    metadata: Metadata = msgspec.field(default_factory=Metadata)


class Kind(Struct):
    """What the object of a question is."""

    group: str = ""
    version: str = ""
    kind: str = ""


class Question(Struct, rename="camel"):
    """One request of a review. `object` is looked into only where it is a pod."""

    uid: str
    kind: Kind
    operation: str
    object: msgspec.Raw = msgspec.Raw(b"null")
    namespace: str = ""
    sub_resource: str = ""
    dry_run: bool | None = None


class _Review(Struct, rename="camel"):
    api_version: str
    kind: str
    request: Question | None = None


_reviews: Final = msgspec.json.Decoder(_Review)
_pods: Final = msgspec.json.Decoder(Pod)


def read_review(body: bytes) -> Question:
    """Raises InvalidReviewError."""
    try:
        review = _reviews.decode(body)
    except msgspec.DecodeError as error:
        raise InvalidReviewError(f"the body is no {_KIND}: {error}") from None
    if (review.api_version, review.kind) != (_VERSION, _KIND):
        raise InvalidReviewError(
            f"the body is a {review.kind} of {review.api_version}; "
            f"admissionReviewVersions of the webhook must be v1, which is {_VERSION}"
        )
    if review.request is None or not review.request.uid:
        raise InvalidReviewError(f"the {_KIND} has no request with a uid")
    return review.request


def read_pod(question: Question) -> Pod:
    """The object of a question about a pod. Raises InvalidReviewError."""
    try:
        return _pods.decode(question.object)
    except msgspec.DecodeError as error:
        raise InvalidReviewError(f"request.object is no pod: {error}") from None


def write_admitted(uid: str, patch: Sequence[dict[str, Any]], warnings: Sequence[str]) -> bytes:
    """The review that lets the object through, changed by a JSON Patch where there is one."""
    response: dict[str, Any] = {"uid": uid, "allowed": True}
    if patch:
        response |= {"patchType": "JSONPatch", "patch": base64.b64encode(msgspec.json.encode(patch)).decode()}
    if warnings:
        response["warnings"] = [_shortened(warning) for warning in warnings]
    return _written(response)


def write_refused(uid: str, message: str) -> bytes:
    """The review that refuses the object; whoever wanted it reads the message."""
    return _written({"uid": uid, "allowed": False, "status": {"code": 403, "reason": "Forbidden", "message": message}})


def _written(response: dict[str, Any]) -> bytes:
    return msgspec.json.encode({"apiVersion": _VERSION, "kind": _KIND, "response": response})


def _shortened(warning: str) -> str:
    return warning if len(warning) <= _LONGEST_WARNING else f"{warning[: _LONGEST_WARNING - 1]}…"
