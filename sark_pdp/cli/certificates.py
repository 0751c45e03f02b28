"""`sark-pdp certificates`: what the chart's Job runs, where no cert-manager is."""

import os
from pathlib import Path

import click

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_FILE = click.Path(path_type=Path)


@click.command(
    epilog="\b\nExample:\n"
    "  sark-pdp certificates --namespace sark-pdp --authority sark-pdp-certificates \\\n"
    "    --issue sark-pdp-injector-tls=sark-pdp-injector.sark-pdp.svc --webhook sark-pdp-injector"
)
@click.option("--namespace", required=True, metavar="NAME", help="Where the Secrets are.")
@click.option("--authority", required=True, metavar="SECRET", help="Holds the authority; only this command reads it.")
@click.option(
    "--issue", required=True, multiple=True, metavar="SECRET=DNS,DNS", help="A certificate for these names. Repeatable."
)
@click.option("--webhook", metavar="NAME", help="The MutatingWebhookConfiguration that must trust the authority.")
@click.option(
    "--days", type=click.IntRange(1, 3650), default=90, show_default=True, help="How long a certificate is valid."
)
@click.option("--url", default="https://kubernetes.default.svc", show_default=True, help="Where the cluster's API is.")
@click.option("--token-file", type=_FILE, default=_ACCOUNT / "token", metavar="FILE", help="Default: the pod's own.")
@click.option("--ca-file", type=_FILE, default=_ACCOUNT / "ca.crt", metavar="FILE", help="Default: the pod's own.")
def certificates(
    namespace: str,
    authority: str,
    issue: tuple[str, ...],
    webhook: str | None,
    days: int,
    url: str,
    token_file: Path,
    ca_file: Path,
) -> None:
    """Keep certificates in Secrets of a Kubernetes cluster valid.

    Makes an authority (ten years) and certificates that it signs, and tells a webhook of it. What is good is left
    alone: run it every day, and a certificate is made anew when a third of its time is left. The Secrets must exist,
    maybe empty. Servers that have them mounted take what is new without a restart.
    """
    from sark_pdp.errors import StartError
    from sark_pdp.injector.api import Api
    from sark_pdp.injector.authority import Plan, keep_valid, utc_now

    for file in (ca_file, token_file):
        if not os.access(file, os.R_OK):
            raise StartError(f"{file}: cannot be read; run in a pod of the cluster, or give --token-file and --ca-file")
    plan = Plan(namespace, authority, _issued(issue), webhook, days)
    keep_valid(Api(url, token_file, ca_file), plan, utc_now(), click.echo)


def _issued(given: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    issued: dict[str, tuple[str, ...]] = {}
    for each in given:
        secret, _, names = each.partition("=")
        issued[secret] = tuple(name for name in names.split(",") if name)
        if not (secret and issued[secret]):
            raise click.UsageError(f"--issue {each}: expected SECRET=NAME, as in web-tls=web.default.svc")
    return issued
