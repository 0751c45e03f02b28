"""`sark-pdp injector`: adds the sidecar to pods as they are created."""

import asyncio
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from sark_pdp.cli.options import source_options
from sark_pdp.errors import SettingsError
from sark_pdp.observability import logging
from sark_pdp.settings import load_as, variables_of
from sark_pdp.settings.keys import variable_of

if TYPE_CHECKING:
    from sark_pdp.injector.server import Injector, Options
    from sark_pdp.injector.template import Template
    from sark_pdp.settings.injector import InjectorSettings, SidecarSettings


@click.command(
    epilog="\b\nExamples:\n"
    "  sark-pdp injector --config injector.yaml\n"
    "  sark-pdp injector --set sidecar.image=registry.example/sark-pdp:0.1.0 --set listen.webhook=0.0.0.0:9443 \\\n"
    "    --set tls.cert_file=/tls/tls.crt --set tls.key_file=/tls/tls.key"
)
@source_options
def injector(config: Path | None, overrides: tuple[str, ...]) -> None:
    """Add the sidecar to pods as they are created, until told to stop.

    A mutating admission webhook of Kubernetes: the API server asks over HTTPS on listen.webhook, metrics and probes are
    on listen.metrics. Several may run. SIGTERM or SIGINT: what was asked is answered, exit code 0. Logs go to standard
    error. See docs/injector.md for the settings and the annotations of a pod.
    """
    from sark_pdp.settings.injector import InjectorSettings, check_injector

    settings = load_as(InjectorSettings, check_injector, config, overrides)
    options = _options(settings)
    logging.configure(settings.log.level, settings.log.format, sys.stderr)
    asyncio.run(_serve(options))


async def _serve(options: "Options") -> None:
    from sark_pdp.injector.server import Injector

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await Injector(options).run(_greet, stop)


def _greet(injector: "Injector") -> None:
    for key, address in sorted(injector.listening.items()):
        click.echo(f"{key:<15} {address}")
    sys.stdout.flush()


def _options(settings: "InjectorSettings") -> "Options":
    """Raises SettingsError."""
    from sark_pdp.certificates import Files
    from sark_pdp.injector.api import Api
    from sark_pdp.injector.server import Options

    tls, kubernetes = settings.tls, settings.kubernetes
    # Both are set, or the settings would have been refused.
    assert tls.cert_file is not None and tls.key_file is not None  # noqa: S101, PT018
    return Options(
        listen=settings.listen.webhook,
        metrics=settings.listen.metrics,
        tls=Files(tls.cert_file, tls.key_file, tls.client_ca_file),
        template=_template(settings.sidecar),
        excluded=frozenset(settings.inject.excluded_namespaces),
        on_failure=settings.inject.on_failure,
        max_bytes=settings.limits.max_review_bytes,
        grace=settings.shutdown.grace,
        api=Api(kubernetes.url, kubernetes.token_file, kubernetes.ca_file) if settings.inject.events else None,
    )


def _template(sidecar: "SidecarSettings") -> "Template":
    from sark_pdp.injector.template import Resources, Template

    return Template(
        image=sidecar.image or "",
        pull_policy=sidecar.image_pull_policy,
        mode=sidecar.mode,
        resources=Resources(sidecar.cpu_request, sidecar.memory_request, sidecar.cpu_limit, sidecar.memory_limit),
        metrics=sidecar.metrics,
        spool_size=sidecar.spool_size,
        user=sidecar.run_as_user,
        token_audience=sidecar.token_audience,
        secret=sidecar.secret,
        variables=_variables(sidecar.settings_file),
        envoy_image=sidecar.envoy_image,
        host_network=sidecar.host_network,
    )


def _variables(file: Path | None) -> tuple[tuple[str, str], ...]:
    """What the operator sets in all sidecars."""
    from sark_pdp.injector.template import INJECTORS_OWN

    if file is None:
        return ()
    values = variables_of(file)
    for name in values:
        if name in INJECTORS_OWN:
            raise SettingsError(
                f"sidecar.settings_file: {file} sets {name}, which the injector decides about; take it out"
            )
        if _tells_secret(name, values[name]):
            raise SettingsError(
                f"sidecar.settings_file: {file}: {name} has a password in it, which any reader of a pod would see;"
                " put it into the Secret of sidecar.secret, and name the file"
            )
    return tuple((variable_of(name), value) for name, value in values.items())


def _tells_secret(name: str, value: str) -> bool:
    if name == "attributes.postgres_dsn":
        from sark_pdp.postgres.connections import holds_secret

        return holds_secret(value)
    return "://" in value and urlsplit(value).password is not None
