"""One hierarchy of errors. Each message is one sentence for the person who meets it.

`transport` and `cli` translate them, once each.
"""

from typing import ClassVar, Final

_MOST_CHARACTERS: Final = 1000


def one_line(text: str, most: int) -> str:
    """What a stranger may have written, safe to show and to log: printable, and of at most so many characters."""
    shortened = text if len(text) <= most else f"{text[:most]} …"
    return "".join(each if each.isprintable() else " " if each.isspace() else "�" for each in shortened)


class SarkError(Exception):
    """Anything that this package refuses or fails to do."""


class StartError(SarkError):
    """The process cannot start as configured: a setting, a file, a socket or a folder is not usable."""


class SettingsError(StartError):
    """A setting is unknown, of the wrong type or unit, or names a missing file."""


class BundleError(SarkError):
    """A bundle cannot be read, verified, built or activated.

    The message may repeat what a stranger wrote into the bundle: it is one printable line of bounded length.
    """

    reason: ClassVar[str] = "invalid"
    """What metrics call it."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message, _MOST_CHARACTERS))


class BundleSourceError(BundleError):
    """Where a bundle is fetched from does not answer, or not with a bundle."""

    reason = "unreachable"


class BundleSizeError(BundleError):
    """A bundle is larger than limits.max_bundle_bytes."""

    reason = "too_large"


class BundleSignatureError(BundleError):
    """A bundle is unsigned, or not signed by the key that is configured for it."""

    reason = "signature"


class BundleActivationError(BundleError):
    """A bundle is sound, but what it holds cannot be run here."""

    reason = "activation"


class AuditError(SarkError):
    """The audit trail cannot be opened, read or written."""


class SpoolDamagedError(AuditError):
    """The file of the audit spool is damaged, which no waiting heals."""


class ShippingError(SarkError):
    """An audit writer cannot be reached, or does not do what it should; the message is the end of a sentence."""


class DatabaseError(SarkError):
    """PostgreSQL cannot be reached, or does not do what it is asked for."""


class InjectionError(SarkError):
    """A pod cannot have a sidecar as it asks for one."""


class RequestError(SarkError):
    """A call that gets no decision."""


class InvalidRequestError(RequestError):
    """The message is malformed; `field` is the part of it that is, in the wire's names."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


class UnknownEntrypointError(RequestError):
    """No loaded policy has this entrypoint."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(f"policy: there is no entrypoint {name!r}; the loaded ones are {', '.join(known) or 'none'}")


class EntrypointNotAllowedError(RequestError):
    """A route of Envoy names an entrypoint that it may not choose."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"the context extension sark_entrypoint names {name[:_MOST_CHARACTERS]!r}, "
            "which policy.ext_authz_allowed does not list"
        )


class NotReadyError(RequestError):
    """No bundle is active yet, or the process is going down."""


class UnauthenticatedError(RequestError):
    """Who asks shows a proof of identity that is none; the message is the reason."""


class OverloadedError(RequestError):
    """A limit on concurrent calls or on bytes in flight is reached."""


class DeadlineExceededError(RequestError):
    """The caller's deadline passed before an evaluation was started."""


class EvaluationError(SarkError):
    """A policy could not be evaluated for this input: a denial with OUTCOME_ERROR, and audited."""


class EvaluationTimeoutError(EvaluationError):
    """A policy ran longer than it may."""


class AttributesError(EvaluationError):
    """What the registry says of a subject cannot be had, or is too old to be believed."""


class WouldWaitError(SarkError):
    """What was asked for cannot be had at once: ask again where waiting is possible."""
