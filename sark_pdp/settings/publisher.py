"""The settings of `sark-pdp publisher`. Keys that a sidecar has too are called the same and mean the same."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from sark_pdp.addresses import TcpAddress
from sark_pdp.errors import SettingsError
from sark_pdp.settings.l2 import RedisSettings, problem_of_server
from sark_pdp.settings.schema import LogSettings


class PublisherListenSettings(Struct, frozen=True, kw_only=True):
    """Where the publisher listens."""

    metrics: Annotated[TcpAddress, Meta(description="`/metrics`, `/healthz` and `/readyz`, over plain HTTP.")] = (
        TcpAddress("127.0.0.1", 9013)
    )


class PublisherRegistrySettings(Struct, frozen=True, kw_only=True):
    """The registry whose changes are published."""

    postgres_dsn: Annotated[str | None, Meta(description="Connection string of PostgreSQL, without a password.")] = None
    postgres_password_file: Annotated[
        Path | None, Meta(description="The password of PostgreSQL, read for each connection.")
    ] = None


class PublisherCacheSettings(Struct, frozen=True, kw_only=True):
    """The Redis through which sidecars hear of changes."""

    l2: RedisSettings = RedisSettings()


class PublisherSettings(Struct, frozen=True, kw_only=True):
    """Every setting of the publisher, with its effective value."""

    listen: PublisherListenSettings = PublisherListenSettings()
    attributes: PublisherRegistrySettings = PublisherRegistrySettings()
    cache: PublisherCacheSettings = PublisherCacheSettings()
    log: LogSettings = LogSettings()


def check_publisher(settings: PublisherSettings, origins: Mapping[str, str]) -> None:
    """Raises SettingsError for the first thing that is wrong."""
    registry, redis = settings.attributes, settings.cache.l2
    if registry.postgres_dsn is None:
        raise SettingsError("attributes.postgres_dsn: is not set; name the registry whose changes are published")
    if redis.url is None:
        raise SettingsError("cache.l2.url: is not set; name the Redis through which sidecars hear of changes")
    file = registry.postgres_password_file
    if file is not None and not (file.is_file() and os.access(file, os.R_OK)):
        key = "attributes.postgres_password_file"
        raise SettingsError(
            f"{key}: '{file}' ({origins[key]}) cannot be read; expected a file that this process may read"
        )
    if problem := problem_of_server(redis):
        key = f"cache.l2.{problem.key}"
        value = getattr(redis, problem.key)
        # A password may be in it, and this line is logged.
        shown = "***" if problem.key == "url" and set(value) & set("@?") else value
        raise SettingsError(f"{key}: '{shown}' ({origins[key]}) {problem.text}")
