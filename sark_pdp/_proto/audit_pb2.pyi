from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Batch(_message.Message):
    __slots__ = ("source", "events")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    source: str
    events: _containers.RepeatedCompositeFieldContainer[Event]
    def __init__(self, source: _Optional[str] = ..., events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("sequence", "chain", "payload", "source")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    chain: bytes
    payload: bytes
    source: str
    def __init__(self, sequence: _Optional[int] = ..., chain: _Optional[bytes] = ..., payload: _Optional[bytes] = ..., source: _Optional[str] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("source", "sequence")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    source: str
    sequence: int
    def __init__(self, source: _Optional[str] = ..., sequence: _Optional[int] = ...) -> None: ...

class Filter(_message.Message):
    __slots__ = ("since", "until", "event_type", "user_id", "server_id", "tool_name", "decision", "source")
    SINCE_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    EVENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    SERVER_ID_FIELD_NUMBER: _ClassVar[int]
    TOOL_NAME_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    since: str
    until: str
    event_type: str
    user_id: str
    server_id: str
    tool_name: str
    decision: str
    source: str
    def __init__(self, since: _Optional[str] = ..., until: _Optional[str] = ..., event_type: _Optional[str] = ..., user_id: _Optional[str] = ..., server_id: _Optional[str] = ..., tool_name: _Optional[str] = ..., decision: _Optional[str] = ..., source: _Optional[str] = ...) -> None: ...

class SearchRequest(_message.Message):
    __slots__ = ("filter", "page_size", "page_token")
    FILTER_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    filter: Filter
    page_size: int
    page_token: str
    def __init__(self, filter: _Optional[_Union[Filter, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class SearchResponse(_message.Message):
    __slots__ = ("events", "next_page_token")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[Event]
    next_page_token: str
    def __init__(self, events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class HourlyCountsResponse(_message.Message):
    __slots__ = ("counts",)
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    counts: _containers.RepeatedCompositeFieldContainer[HourlyCount]
    def __init__(self, counts: _Optional[_Iterable[_Union[HourlyCount, _Mapping]]] = ...) -> None: ...

class HourlyCount(_message.Message):
    __slots__ = ("hour", "user_id", "event_type", "count")
    HOUR_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    EVENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    hour: str
    user_id: str
    event_type: str
    count: int
    def __init__(self, hour: _Optional[str] = ..., user_id: _Optional[str] = ..., event_type: _Optional[str] = ..., count: _Optional[int] = ...) -> None: ...
