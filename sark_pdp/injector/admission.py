"""Decides about one question of the API server: what becomes of a pod."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Final, Literal

from msgspec import Struct

from sark_pdp.errors import InjectionError
from sark_pdp.injector.annotations import INJECT, PREFIX, is_wanted
from sark_pdp.injector.injection import Operation, has_sidecar, inject, is_marked
from sark_pdp.injector.review import Pod, Question, read_pod
from sark_pdp.injector.template import OWN_LABEL, SIDECAR, Template

_MIRROR: Final = "kubernetes.io/config.mirror"
"""The annotation of what stands for a pod that a node runs by itself: changing it changes nothing."""


class Outcome(StrEnum):
    """What became of a pod; what metrics call it."""

    INJECTED = "injected"
    COMPLETE = "complete"
    """It has all that it would be given, or a sidecar of its own."""
    SKIPPED = "skipped"
    """It does not want a sidecar, or must not have one."""
    REFUSED = "refused"
    ADMITTED = "admitted"
    """It should have a sidecar, cannot, and is let through without."""


class Verdict(Struct, frozen=True):
    """The answer to one question."""

    outcome: Outcome
    patch: Sequence[Operation] = ()
    problem: str = ""
    """Why a pod was refused, or was admitted without a sidecar."""
    warning: str = ""
    """What whoever creates the pod should know; most clients show it."""
    pod: Pod | None = None


class Admission:
    """One injector's rules."""

    def __init__(self, template: Template, excluded: frozenset[str], on_failure: Literal["refuse", "admit"]) -> None:
        """`excluded` are namespaces where no pod is looked at."""
        self._template = template
        self._excluded = excluded
        self._on_failure = on_failure

    def decide(self, question: Question, *, otherwise: bool) -> Verdict:
        """`otherwise` is whether a pod that does not say so is to have a sidecar. Raises InvalidReviewError."""
        kind = question.kind
        is_pod = (kind.group, kind.version, kind.kind) == ("", "v1", "Pod") and not question.sub_resource
        if not is_pod or question.operation != "CREATE" or question.namespace in self._excluded:
            return Verdict(Outcome.SKIPPED)
        pod = read_pod(question)
        labels, annotations = pod.metadata.labels or {}, pod.metadata.annotations or {}
        if labels.get(OWN_LABEL[0]) == OWN_LABEL[1] or _MIRROR in annotations:
            return Verdict(Outcome.SKIPPED)
        try:
            if not is_wanted(annotations, otherwise=otherwise):
                return Verdict(Outcome.SKIPPED)
            return self._injected(pod)
        except InjectionError as error:
            return self._failed(pod, str(error))

    def _injected(self, pod: Pod) -> Verdict:
        if pod.spec.host_network and not self._template.host_network and not _asks(pod):
            return Verdict(Outcome.SKIPPED, warning="no sidecar was added: the pod is in the node's network")
        if has_sidecar(pod) and not is_marked(pod):
            warning = f"no sidecar was added: the pod has a container {SIDECAR} of its own"
            return Verdict(Outcome.COMPLETE, warning=warning)
        patch = inject(pod, self._template)
        return Verdict(Outcome.INJECTED if patch else Outcome.COMPLETE, patch, pod=pod)

    def _failed(self, pod: Pod, problem: str) -> Verdict:
        if self._on_failure == "refuse":
            return Verdict(Outcome.REFUSED, problem=problem, pod=pod)
        warning = f"the pod has no sidecar: {problem}"
        return Verdict(Outcome.ADMITTED, problem=problem, warning=warning, pod=pod)


def _asks(pod: Pod) -> bool:
    """Whether the pod itself wants one; otherwise its namespace does, for all of its pods."""
    return PREFIX + INJECT in (pod.metadata.annotations or {})
