from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReloadBundleRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ReloadBundleResponse(_message.Message):
    __slots__ = ("bundle",)
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    bundle: Bundle
    def __init__(self, bundle: _Optional[_Union[Bundle, _Mapping]] = ...) -> None: ...

class InvalidateRequest(_message.Message):
    __slots__ = ("user_id", "server_id", "tool_id", "policy", "data_root", "all", "tool_name")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    SERVER_ID_FIELD_NUMBER: _ClassVar[int]
    TOOL_ID_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    DATA_ROOT_FIELD_NUMBER: _ClassVar[int]
    ALL_FIELD_NUMBER: _ClassVar[int]
    TOOL_NAME_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    server_id: str
    tool_id: str
    policy: str
    data_root: str
    all: bool
    tool_name: str
    def __init__(self, user_id: _Optional[str] = ..., server_id: _Optional[str] = ..., tool_id: _Optional[str] = ..., policy: _Optional[str] = ..., data_root: _Optional[str] = ..., all: _Optional[bool] = ..., tool_name: _Optional[str] = ...) -> None: ...

class InvalidateResponse(_message.Message):
    __slots__ = ("shared",)
    SHARED_FIELD_NUMBER: _ClassVar[int]
    shared: bool
    def __init__(self, shared: _Optional[bool] = ...) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("serving", "bundles", "problems", "caches", "audit")
    SERVING_FIELD_NUMBER: _ClassVar[int]
    BUNDLES_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    CACHES_FIELD_NUMBER: _ClassVar[int]
    AUDIT_FIELD_NUMBER: _ClassVar[int]
    serving: bool
    bundles: _containers.RepeatedCompositeFieldContainer[Bundle]
    problems: _containers.RepeatedScalarFieldContainer[str]
    caches: _containers.RepeatedCompositeFieldContainer[Cache]
    audit: AuditTrail
    def __init__(self, serving: _Optional[bool] = ..., bundles: _Optional[_Iterable[_Union[Bundle, _Mapping]]] = ..., problems: _Optional[_Iterable[str]] = ..., caches: _Optional[_Iterable[_Union[Cache, _Mapping]]] = ..., audit: _Optional[_Union[AuditTrail, _Mapping]] = ...) -> None: ...

class Bundle(_message.Message):
    __slots__ = ("name", "revision", "digest", "error")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    name: str
    revision: str
    digest: str
    error: str
    def __init__(self, name: _Optional[str] = ..., revision: _Optional[str] = ..., digest: _Optional[str] = ..., error: _Optional[str] = ...) -> None: ...

class Cache(_message.Message):
    __slots__ = ("name", "entries", "capacity", "hits", "misses", "notes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    HITS_FIELD_NUMBER: _ClassVar[int]
    MISSES_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    entries: int
    capacity: int
    hits: int
    misses: int
    notes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., entries: _Optional[int] = ..., capacity: _Optional[int] = ..., hits: _Optional[int] = ..., misses: _Optional[int] = ..., notes: _Optional[_Iterable[str]] = ...) -> None: ...

class AuditTrail(_message.Message):
    __slots__ = ("source", "sequence", "queued", "spool_bytes", "dropped", "ships", "shipped", "lag_seconds")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    SPOOL_BYTES_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    SHIPS_FIELD_NUMBER: _ClassVar[int]
    SHIPPED_FIELD_NUMBER: _ClassVar[int]
    LAG_SECONDS_FIELD_NUMBER: _ClassVar[int]
    source: str
    sequence: int
    queued: int
    spool_bytes: int
    dropped: int
    ships: bool
    shipped: int
    lag_seconds: float
    def __init__(self, source: _Optional[str] = ..., sequence: _Optional[int] = ..., queued: _Optional[int] = ..., spool_bytes: _Optional[int] = ..., dropped: _Optional[int] = ..., ships: _Optional[bool] = ..., shipped: _Optional[int] = ..., lag_seconds: _Optional[float] = ...) -> None: ...
