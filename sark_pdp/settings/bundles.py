"""What of `policy.bundles[]` only makes sense together, or not at all."""

import os
from collections.abc import Sequence
from urllib.parse import urlsplit

from msgspec import Struct

from sark_pdp.addresses import TcpAddress
from sark_pdp.settings.schema import BundleSettings

_OF_URLS = ("long_poll", "token_file", "ca_file", "client_cert_file", "client_key_file", "persist_dir")
_FILES = ("token_file", "ca_file", "client_cert_file", "client_key_file", "verification_key_file")


class BundleProblem(Struct, frozen=True):
    """The first thing that is wrong."""

    at: str
    """Below `policy.bundles`, as in `[0].path`."""
    value: str
    text: str
    """The end of a sentence."""


def problem_of(bundles: Sequence[BundleSettings], *, packed: bool) -> BundleProblem | None:
    """None where all is well; `packed`: nobody set it, and the packed bundle need not have been built."""
    if not bundles:
        return BundleProblem("", "[]", "is empty; expected at least one bundle")
    names = [bundle.name for bundle in bundles]
    if len(set(names)) < len(names):
        return BundleProblem("", str(names), "has two bundles of one name; expected names that differ")
    for index, bundle in enumerate(bundles):
        problem = _of_place(bundle, packed=packed) or _of_files(bundle) or _of_url(bundle)
        if problem:
            key, text = problem
            value = getattr(bundle, key) if key else bundle.name
            return BundleProblem(f"[{index}]" + (f".{key}" if key else ""), f"'{value}'", text)
    return None


def _of_place(bundle: BundleSettings, *, packed: bool) -> tuple[str, str] | None:
    if (bundle.path is None) == (bundle.url is None):
        return "", "needs a path or a url, and not both"
    if bundle.path is not None and not packed and not os.access(bundle.path, os.R_OK):
        return "path", "cannot be read; expected a bundle"
    if bundle.path is not None:
        for key in _OF_URLS:
            if getattr(bundle, key):
                return key, "is of use with a url only"
    return None


def _of_files(bundle: BundleSettings) -> tuple[str, str] | None:
    for key in _FILES:
        file = getattr(bundle, key)
        if file is not None and not (file.is_file() and os.access(file, os.R_OK)):
            return key, "cannot be read; expected a file that this process may read"
    if (bundle.client_cert_file is None) != (bundle.client_key_file is None):
        key = "client_key_file" if bundle.client_cert_file is None else "client_cert_file"
        return key, "is of no use alone; set client_cert_file and client_key_file"
    return None


def _of_url(bundle: BundleSettings) -> tuple[str, str] | None:
    if bundle.url is None:
        return None
    try:
        url = urlsplit(bundle.url)
        host, port = url.hostname or "", url.port or 0
    except ValueError:
        return "url", "is no URL; expected http://host/path or https://host/path"
    if url.scheme not in {"http", "https"} or not host or not bundle.url.isprintable() or " " in bundle.url:
        return "url", "is no URL; expected http://host/path or https://host/path"
    if url.username is not None or url.fragment:
        return "url", "has a user or a fragment in it; expected a token_file or a certificate instead"
    if url.scheme == "http":
        if bundle.ca_file or bundle.client_cert_file:
            return "url", "is http, and has a ca_file or a client_cert_file; expected https"
        if not TcpAddress(host, port).loopback and (bundle.token_file or not bundle.verification_key_file):
            text = "is http to another machine, where anybody between can read the token and change the policies"
            return "url", f"{text}; expected https, or no token_file and a verification_key_file"
    return None
