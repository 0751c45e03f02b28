"""The settings of a process: typed, checked, and each with where it came from. The only reader of the environment."""

from sark_pdp.settings.audit import AuditSettings, AuditTlsSettings
from sark_pdp.settings.l2 import L2Settings
from sark_pdp.settings.load import DEFAULT, Loaded, default_bundle, load, load_as, variables_of
from sark_pdp.settings.schema import (
    AttributeSettings,
    BundleSettings,
    CacheSettings,
    L1Settings,
    LimitSettings,
    ListenSettings,
    LogSettings,
    PolicySettings,
    Settings,
    ShutdownSettings,
    TlsSettings,
)
from sark_pdp.settings.tracing import TracingSettings
from sark_pdp.settings.units import Bytes

__all__ = [
    "DEFAULT",
    "AttributeSettings",
    "AuditSettings",
    "AuditTlsSettings",
    "BundleSettings",
    "Bytes",
    "CacheSettings",
    "L1Settings",
    "L2Settings",
    "LimitSettings",
    "ListenSettings",
    "Loaded",
    "LogSettings",
    "PolicySettings",
    "Settings",
    "ShutdownSettings",
    "TlsSettings",
    "TracingSettings",
    "default_bundle",
    "load",
    "load_as",
    "variables_of",
]
