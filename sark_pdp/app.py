"""The sidecar: builds its parts from the settings, starts them, and takes them down in order."""

import gc
import logging
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

from prometheus_client.registry import Collector

from sark_pdp import envoy
from sark_pdp.addresses import Address, UnixAddress
from sark_pdp.audit.violations import Violations
from sark_pdp.caching import Caches
from sark_pdp.clock import SystemClock
from sark_pdp.decision.invalidation import Invalidations
from sark_pdp.decision.service import DecisionService
from sark_pdp.engine.bundles.reporting import Reporter
from sark_pdp.engine.evaluator import Evaluator
from sark_pdp.engine.policies import BundleState, LoadedPolicies, Policies
from sark_pdp.engine.wasm.policy import Runtime
from sark_pdp.errors import StartError
from sark_pdp.interfaces import Decider, StoreStatistics
from sark_pdp.model import PolicyRevision, Seconds
from sark_pdp.observability.bundles import BundleReading
from sark_pdp.observability.exposition import Readings, registry
from sark_pdp.observability.http import ProbeListener
from sark_pdp.observability.metrics import Metrics
from sark_pdp.settings import Settings
from sark_pdp.supply import supplied
from sark_pdp.trail import Trail
from sark_pdp.transport import admin, ext_authz, health, native, reflection
from sark_pdp.transport.carrier import Limits, server_kind
from sark_pdp.transport.documents import Documents
from sark_pdp.transport.handler import Methods
from sark_pdp.transport.questions import Questions
from sark_pdp.transport.tls import Tls

if TYPE_CHECKING:
    from sark_pdp.engine.bundles.manager import Bundles
    from sark_pdp.http_api import HttpApi
    from sark_pdp.registry import Registry
    from sark_pdp.transport.principal.principals import Principals

_EXT_AUTHZ: Final = "envoy.service.auth.v3.Authorization"
_ADMIN_LIMITS: Final = Limits(max_concurrent=16, in_flight_bytes=1 << 20, max_message_bytes=1 << 16, max_connections=64)
_SWITCH_INTERVAL: Final = 0.0001
"""Seconds."""
_LEAST_GRACE: Final = 1.0
"""Seconds that the audit trail gets to be flushed, however long the calls took."""

_log = logging.getLogger(__name__)


def _make_folder(folder: Path, setting: str) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(f"{setting}: the folder {folder} cannot be created: {error.strerror}") from error


class App:
    """One sidecar. `start` and `stop` are called once each, by one thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._running = ExitStack()
        self._missing: tuple[str, ...] = ()
        self._problems: list[Callable[[], list[str]]] = []
        # All that has to finish before the end shares one grace; it begins with `stop`.
        self._grace_ends = 0.0
        self._bundles: Bundles | None = None
        self.readiness = health.Readiness()
        self.listening: dict[str, list[Address]] = {}
        """By the key of the setting, with real ports; complete after the start."""

    @property
    def revisions(self) -> tuple[PolicyRevision, ...]:
        """Of the active bundles; those that are fetched may come after the start."""
        return tuple(PolicyRevision(state.revision or state.digest) for state in self._states() if state.digest)

    def start(self) -> None:
        """Returns when decisions are answered, or as soon as bundles that have to be fetched are there.

        Raises StartError, BundleError or AuditError where it cannot be; nothing is left running then.
        """
        try:
            self._start()
        except BaseException:
            self._close()
            raise

    def stop(self) -> None:
        """NOT_SERVING, drain, flush the audit trail. Raises AuditError where events could not be committed."""
        self.readiness.set_stopping()
        _log.info("stopping")
        self._close()
        _log.info("stopped")

    def reload(self) -> None:
        """Asks all sources of bundles now; returns at once."""
        if self._bundles is not None:
            self._bundles.ask_all_now()

    def _close(self) -> None:
        self._grace_ends = time.monotonic() + self._settings.shutdown.grace
        self._running.close()

    def _grace(self) -> Seconds:
        return Seconds(max(self._grace_ends - time.monotonic(), _LEAST_GRACE))

    def _start(self) -> None:
        settings, metrics = self._settings, Metrics()
        trail = Trail(settings.audit, settings.tracing, SystemClock())
        trail.start()
        self._running.callback(lambda: trail.close(self._grace()))
        audit = trail.sink
        self._problems += [] if trail.spans is None else [trail.spans.problems]
        runtime = Runtime(
            eval_timeout=settings.limits.eval_timeout,
            memory_limit=settings.limits.wasm_memory,
            clock=SystemClock(),
            compiled_folder=settings.state_dir / "compiled",
        )
        self._running.callback(runtime.close)
        policies = Policies(runtime)
        caches = Caches(settings.cache)
        self._running.callback(caches.close)
        caches.start()
        decider, stores = caches.above(Evaluator(metrics.evaluation)), caches.statistics
        self._problems.append(caches.problems)
        collectors: list[Collector] = [each for each in (caches.metrics, trail.spans) if each is not None]
        registry_of_users = self._registry(caches)
        if registry_of_users is not None:
            decider, stores = self._completing(registry_of_users, decider, stores)
            collectors.append(registry_of_users.metrics)
        answers = ext_authz.Answers(dry_run=settings.policy.ext_authz_dry_run)
        reviewed = ext_authz.ReviewedDecider(decider, answers)
        native_service = DecisionService(policies, decider, audit, metrics.decision)
        envoy_service = DecisionService(policies, reviewed, audit, metrics.decision)
        violations = Violations(audit)
        principals, tls = self._principals(violations), self._tls(violations)
        questions = self._questions(principals)
        http = self._http(native_service, questions, metrics, tls)
        collectors += [] if http is None else [http.metrics]
        self._start_probes(metrics, trail, stores, collectors)
        bundles = self._bundles = supplied(
            settings.policy.bundles,
            settings.limits.max_bundle_bytes,
            policies,
            Reporter(audit, metrics, self._on_active),
        )
        sources = admin.Sources(self.readiness, bundles.states, stores, trail.statistics, self._warnings)
        administration = admin.methods(sources, bundles.reload, Invalidations(caches.generations, audit).invalidate)
        decisions = self._methods(native_service, questions, envoy_service, answers, principals)
        self._start_servers(decisions, administration, metrics, tls)
        if http is not None:
            self._running.callback(lambda: http.stop(self._grace()))
            self.listening["listen.http"] = http.start()
        # A thread that wants to answer waits this long for one that runs Python: 5 ms by default, each time.
        sys.setswitchinterval(_SWITCH_INTERVAL)
        # What was built so far lives as long as the process: the collector need not look at it again. Policies do not.
        gc.collect()
        gc.freeze()
        self._running.callback(lambda: bundles.close(Seconds(_LEAST_GRACE)))
        bundles.start()

    def _principals(self, violations: Violations) -> "Principals | None":
        settings = self._settings.principal
        if not settings.used:
            return None
        from sark_pdp.principals import Proofs

        made = Proofs(settings, violations.client_refused)
        made.start()
        self._running.callback(made.close)
        self._problems.append(made.problems)
        return made.principals

    def _registry(self, caches: Caches) -> "Registry | None":
        settings = self._settings.attributes
        if settings.postgres_dsn is None:
            return None
        from sark_pdp.registry import Registry

        made = Registry(
            settings, settings.postgres_dsn, caches.generations, caches.signed, self._settings.cache.max_staleness
        )
        made.start()
        self._running.callback(made.close)
        return made

    def _completing(
        self, registry_of_users: "Registry", decider: Decider, stores: Callable[[], list[StoreStatistics]]
    ) -> tuple[Decider, Callable[[], list[StoreStatistics]]]:
        self._problems.append(registry_of_users.problems)
        return registry_of_users.above(decider), lambda: [*stores(), *registry_of_users.statistics()]

    def _warnings(self) -> list[str]:
        return [*self._missing, *(problem for problems in self._problems for problem in problems())]

    def _questions(self, principals: "Principals | None") -> Questions:
        limits = self._settings.limits
        documents = Documents(limits.max_input_bytes, limits.max_depth, limits.max_values)
        return Questions(documents, self._settings.policy.entrypoint, principals)

    def _http(
        self, service: DecisionService, questions: Questions, metrics: Metrics, tls: Tls | None
    ) -> "HttpApi | None":
        if not self._settings.listen.http:
            return None
        from sark_pdp.http_api import HttpApi

        return HttpApi(self._settings, service, questions, metrics, tls)

    def _methods(
        self,
        service: DecisionService,
        questions: Questions,
        envoy_service: DecisionService,
        answers: ext_authz.Answers,
        principals: "Principals | None",
    ) -> Methods:
        settings, limits = self._settings, self._settings.limits
        services = (native.SERVICE, _EXT_AUTHZ)
        return {
            **native.methods(service, questions, limits.max_batch),
            ext_authz.CHECK: envoy.method(settings, envoy_service, answers, principals),
            **health.methods(self.readiness, services),
            **reflection.methods((*services, health.SERVICE)),
        }

    def _start_probes(
        self,
        metrics: Metrics,
        trail: Trail,
        stores: Callable[[], list[StoreStatistics]],
        collectors: list[Collector],
    ) -> None:
        def bundles() -> list[BundleReading]:
            return [BundleReading(it.name, it.revision or it.digest, bool(it.error)) for it in self._states()]

        shown = registry(metrics, Readings(stores, bundles, trail.readings))
        for collector in collectors:
            shown.register(collector)
        listener = ProbeListener(self._settings.listen.metrics, shown, lambda: self.readiness.problem or None)
        listener.start()
        self._running.callback(listener.close)
        self.listening["listen.metrics"] = [listener.address]

    def _start_servers(self, decisions: Methods, administration: Methods, metrics: Metrics, tls: Tls | None) -> None:
        settings, limits = self._settings, self._settings.limits
        grpc_limits = Limits(limits.max_concurrent, limits.in_flight_bytes, limits.max_message_bytes)
        make_server = server_kind(settings.transport)
        server = make_server(decisions, grpc_limits, metrics, tls)
        self._running.callback(lambda: server.stop(self._grace()))
        self.listening["listen.grpc"] = [
            server.listen(address, "listen.grpc", settings.listen.socket_mode, settings.listen.socket_owner)
            for address in settings.listen.grpc
        ]
        address = settings.listen.admin
        if isinstance(address, UnixAddress):
            _make_folder(address.path.parent, "listen.admin")
        reflected = {**administration, **reflection.methods((admin.SERVICE,))}
        admin_server = make_server(reflected, _ADMIN_LIMITS, metrics, tls)
        self._running.callback(lambda: admin_server.stop(self._grace()))
        self.listening["listen.admin"] = [admin_server.listen(address, "listen.admin")]
        server.start()
        admin_server.start()

    def _tls(self, violations: Violations) -> Tls | None:
        tls = self._settings.tls
        if tls.cert_file is None or tls.key_file is None:
            return None
        return Tls(tls.cert_file, tls.key_file, tls.client_ca_file, tls.allowed_sans, violations.client_refused)

    def _on_active(self, active: LoadedPolicies) -> None:
        policy = self._settings.policy
        named = {"policy.entrypoint": policy.entrypoint, "policy.ext_authz_entrypoint": policy.ext_authz_entrypoint}
        missing = (
            *(f"{key} is {name}, which the bundle lacks" for key, name in named.items() if name not in active.names),
            *(
                f"policy.ext_authz_allowed lists {name}, which the bundle lacks"
                for name in policy.ext_authz_allowed
                if name not in active.names
            ),
        )
        for problem in missing:
            if problem not in self._missing:
                _log.warning(problem)
        self._missing = missing
        self.readiness.set_serving()

    def _states(self) -> tuple[BundleState, ...]:
        return () if self._bundles is None else self._bundles.states()
