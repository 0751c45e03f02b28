import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.rpc import status_pb2 as _status_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_UNSPECIFIED: _ClassVar[Outcome]
    OUTCOME_ALLOW: _ClassVar[Outcome]
    OUTCOME_DENY: _ClassVar[Outcome]
    OUTCOME_UNDEFINED: _ClassVar[Outcome]
    OUTCOME_ERROR: _ClassVar[Outcome]

class Tier(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TIER_UNSPECIFIED: _ClassVar[Tier]
    TIER_EVALUATED: _ClassVar[Tier]
    TIER_L1: _ClassVar[Tier]
    TIER_L2: _ClassVar[Tier]
    TIER_STALE: _ClassVar[Tier]
OUTCOME_UNSPECIFIED: Outcome
OUTCOME_ALLOW: Outcome
OUTCOME_DENY: Outcome
OUTCOME_UNDEFINED: Outcome
OUTCOME_ERROR: Outcome
TIER_UNSPECIFIED: Tier
TIER_EVALUATED: Tier
TIER_L1: Tier
TIER_L2: Tier
TIER_STALE: Tier

class CheckRequest(_message.Message):
    __slots__ = ("request_id", "policy", "authorization", "input_json", "input", "max_age")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    AUTHORIZATION_FIELD_NUMBER: _ClassVar[int]
    INPUT_JSON_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    MAX_AGE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    policy: str
    authorization: Authorization
    input_json: bytes
    input: _struct_pb2.Struct
    max_age: _duration_pb2.Duration
    def __init__(self, request_id: _Optional[str] = ..., policy: _Optional[str] = ..., authorization: _Optional[_Union[Authorization, _Mapping]] = ..., input_json: _Optional[bytes] = ..., input: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., max_age: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Authorization(_message.Message):
    __slots__ = ("user", "action", "tool", "server", "context", "parameters", "source_agent", "target_agent")
    USER_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    TOOL_FIELD_NUMBER: _ClassVar[int]
    SERVER_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_AGENT_FIELD_NUMBER: _ClassVar[int]
    TARGET_AGENT_FIELD_NUMBER: _ClassVar[int]
    user: _struct_pb2.Struct
    action: str
    tool: _struct_pb2.Struct
    server: _struct_pb2.Struct
    context: _struct_pb2.Struct
    parameters: _struct_pb2.Struct
    source_agent: _struct_pb2.Struct
    target_agent: _struct_pb2.Struct
    def __init__(self, user: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., action: _Optional[str] = ..., tool: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., server: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., context: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., parameters: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., source_agent: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., target_agent: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class CheckResponse(_message.Message):
    __slots__ = ("request_id", "allow", "reason", "filtered_parameters", "result_json", "decision_id", "policy_revision", "outcome", "tier", "cache_ttl")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ALLOW_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    FILTERED_PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    RESULT_JSON_FIELD_NUMBER: _ClassVar[int]
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    POLICY_REVISION_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    CACHE_TTL_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    allow: bool
    reason: str
    filtered_parameters: _struct_pb2.Struct
    result_json: bytes
    decision_id: str
    policy_revision: str
    outcome: Outcome
    tier: Tier
    cache_ttl: _duration_pb2.Duration
    def __init__(self, request_id: _Optional[str] = ..., allow: _Optional[bool] = ..., reason: _Optional[str] = ..., filtered_parameters: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., result_json: _Optional[bytes] = ..., decision_id: _Optional[str] = ..., policy_revision: _Optional[str] = ..., outcome: _Optional[_Union[Outcome, str]] = ..., tier: _Optional[_Union[Tier, str]] = ..., cache_ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class CheckBatchRequest(_message.Message):
    __slots__ = ("checks",)
    CHECKS_FIELD_NUMBER: _ClassVar[int]
    checks: _containers.RepeatedCompositeFieldContainer[CheckRequest]
    def __init__(self, checks: _Optional[_Iterable[_Union[CheckRequest, _Mapping]]] = ...) -> None: ...

class CheckBatchResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[CheckBatchResult]
    def __init__(self, results: _Optional[_Iterable[_Union[CheckBatchResult, _Mapping]]] = ...) -> None: ...

class CheckBatchResult(_message.Message):
    __slots__ = ("response", "error")
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    response: CheckResponse
    error: _status_pb2.Status
    def __init__(self, response: _Optional[_Union[CheckResponse, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class FilterRequest(_message.Message):
    __slots__ = ("template", "resource_field", "resources")
    TEMPLATE_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELD_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    template: CheckRequest
    resource_field: str
    resources: _containers.RepeatedCompositeFieldContainer[_struct_pb2.Struct]
    def __init__(self, template: _Optional[_Union[CheckRequest, _Mapping]] = ..., resource_field: _Optional[str] = ..., resources: _Optional[_Iterable[_Union[_struct_pb2.Struct, _Mapping]]] = ...) -> None: ...

class FilterResponse(_message.Message):
    __slots__ = ("allowed", "responses")
    ALLOWED_FIELD_NUMBER: _ClassVar[int]
    RESPONSES_FIELD_NUMBER: _ClassVar[int]
    allowed: _containers.RepeatedScalarFieldContainer[int]
    responses: _containers.RepeatedCompositeFieldContainer[CheckResponse]
    def __init__(self, allowed: _Optional[_Iterable[int]] = ..., responses: _Optional[_Iterable[_Union[CheckResponse, _Mapping]]] = ...) -> None: ...
