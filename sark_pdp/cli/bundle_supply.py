"""`sark-pdp bundle sign|diff|serve`: what happens to bundles between building and activating."""

import signal
import sys
import threading
from pathlib import Path

import click

from sark_pdp.addresses import parse_tcp
from sark_pdp.cli import signals
from sark_pdp.errors import BundleError, StartError

_FILE = click.Path(path_type=Path)
_ALGORITHMS = tuple(family + size for family in ("RS", "ES", "PS", "HS") for size in ("256", "384", "512"))


@click.command(
    epilog="\b\nExamples:\n"
    "  openssl ecparam -name prime256v1 -genkey -noout -out private.pem\n"
    "  openssl ec -in private.pem -pubout -out public.pem\n"
    "  sark-pdp bundle sign bundle.tar.gz --key private.pem --alg ES256\n"
    "  sark-pdp bundle verify bundle.tar.gz --key public.pem"
)
@click.argument("file", type=_FILE)
@click.option("--key", required=True, type=_FILE, metavar="FILE", help="A private key in PEM, or a secret.")
@click.option(
    "--alg", default="RS256", type=click.Choice(_ALGORITHMS), metavar="NAME", help="RS256, ES256, HS256 … [RS256]"
)
@click.option("--key-id", default="", metavar="TEXT", help="Which of its keys a verifier takes.")
@click.option("--scope", default="", metavar="TEXT", help="What a verifier's key has to be for.")
@click.option("--output", "-o", type=_FILE, metavar="FILE", help="Where to write it. Default: FILE itself.")
def sign(file: Path, key: Path, alg: str, key_id: str, scope: str, output: Path | None) -> None:
    """Sign a bundle or a delta as `opa sign` does.

    OPA verifies it too, under the key id that it has (`default` where none is configured).
    """
    from sark_pdp.engine.archive import MAX_BYTES, pack_archive, read_archive, replace_file
    from sark_pdp.engine.signatures import signed

    try:
        content = key.read_bytes()
    except OSError as error:
        raise BundleError(f"signing key {key}: cannot be read: {error.strerror}") from None
    files = {name: bytes(each) for name, each in read_archive(file, MAX_BYTES)[0].items()}
    replace_file(output or file, pack_archive(signed(files, content, alg, key_id, scope)))
    click.echo(f"{output or file}: signed with {alg}")


@click.command(
    epilog="\b\nExample:\n  sark-pdp bundle diff bundle.tar.gz candidate.tar.gz\n"
    "\b\n"
    "Exit codes: 0 both decide the same, 1 they differ, 2 one cannot be read."
)
@click.argument("one", type=_FILE)
@click.argument("other", type=_FILE)
@click.option("--key", type=_FILE, metavar="FILE", help="What both must be signed with.")
def diff(one: Path, other: Path, key: Path | None) -> None:
    """Show what changes from ONE bundle to the OTHER: entrypoints, what they read, and data.

    Revisions do not count.
    """
    from sark_pdp.engine.bundle import read_bundle
    from sark_pdp.engine.differences import differences
    from sark_pdp.engine.signatures import read_keys

    keys = None if key is None else read_keys(key)
    found = differences(read_bundle(one, keys=keys), read_bundle(other, keys=keys))
    for line in found:
        click.echo(line)
    sys.exit(1 if found else 0)


@click.command(
    epilog="\b\nExample:\n"
    "  sark-pdp bundle serve bundles/ &\n"
    "  sark-pdp serve --set policy.bundles='"
    """[{"name": "mine", "url": "http://127.0.0.1:8181/mine.tar.gz", "long_poll": "30s"}]'"""
)
@click.argument("folder", type=_FILE, metavar="DIR")
@click.option("--listen", default="127.0.0.1:8181", metavar="HOST:PORT", help="[127.0.0.1:8181]")
@click.option("--token-file", type=_FILE, metavar="FILE", help="Only answer who sends this bearer token.")
def serve(folder: Path, listen: str, token_file: Path | None) -> None:
    """Serve the files of DIR to sidecars, for trials and tests.

    Plain HTTP with ETag and long polling; a file that changes is delivered at once. For production put bundles behind
    any web server, with TLS.
    """
    from sark_pdp.engine.bundles.server import BundleServer

    if not folder.is_dir():
        raise BundleError(f"{folder}: there is no such folder")
    try:
        address = parse_tcp(listen)
    except ValueError as error:
        raise StartError(f"--listen {listen}: {error}; expected host:port") from None
    try:
        token = None if token_file is None else token_file.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise StartError(f"--token-file {token_file}: cannot be read") from None
    server = BundleServer(folder, address, token)
    signals.hold(signals.END)
    threading.Thread(target=server.serve_forever, name="bundle server", daemon=True).start()
    click.echo(f"http://{server.address}/FILE serves the files of {folder}")
    signal.sigwait(signals.END)
    server.close()
