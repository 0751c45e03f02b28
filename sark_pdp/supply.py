"""Puts the parts together that supply policies. `app` alone imports it."""

from collections.abc import Sequence
from typing import Final

from sark_pdp.engine.bundles.keeping import Keeper
from sark_pdp.engine.bundles.manager import Bundles
from sark_pdp.engine.bundles.reporting import Reporter
from sark_pdp.engine.bundles.sources import FileSource, Source
from sark_pdp.engine.bundles.supply import BundleOptions
from sark_pdp.engine.policies import Policies
from sark_pdp.model import Seconds
from sark_pdp.settings import BundleSettings

_FILE_INTERVAL: Final = Seconds(1.0)
_URL_INTERVAL: Final = Seconds(60.0)


def supplied(bundles: Sequence[BundleSettings], max_bytes: int, policies: Policies, reporter: Reporter) -> Bundles:
    """What keeps these bundles up to date, not started."""
    configured = [(_options(bundle), _source(bundle, max_bytes)) for bundle in bundles]
    return Bundles(policies, configured, max_bytes, reporter)


def _options(bundle: BundleSettings) -> BundleOptions:
    interval = bundle.poll_interval
    if interval is None:
        interval = _FILE_INTERVAL if bundle.url is None else _URL_INTERVAL
    keeper = None if bundle.persist_dir is None else Keeper(bundle.persist_dir, bundle.name)
    return BundleOptions(bundle.name, interval, bundle.long_poll, bundle.verification_key_file, keeper)


def _source(bundle: BundleSettings, max_bytes: int) -> Source:
    if bundle.path is not None:
        return FileSource(bundle.path, max_bytes)
    from sark_pdp.engine.bundles.http_source import HttpLocation, HttpSource

    location = HttpLocation(
        bundle.url or "", bundle.token_file, bundle.ca_file, bundle.client_cert_file, bundle.client_key_file
    )
    return HttpSource(location, max_bytes)
