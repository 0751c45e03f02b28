"""Documents that come again are read as they were the first time, and what is remembered of them is bounded."""

from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sark_pdp._proto.decision_pb2 import CheckRequest
from sark_pdp.errors import InvalidRequestError
from sark_pdp.model import Json
from sark_pdp.projection import Projection
from sark_pdp.transport import recent
from sark_pdp.transport.documents import Documents
from sark_pdp.transport.recent import RecentDocuments

DOCUMENTS = Documents(max_bytes=1 << 20, max_depth=6, max_values=1000)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=4), below, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.sampled_from(["user", "tool", "action", "other"]), VALUES, max_size=4)


def as_json(document: dict[str, Json]) -> CheckRequest:
    return CheckRequest(input_json=msgspec.json.encode(document))


def as_struct(document: dict[str, Json]) -> CheckRequest:
    check = CheckRequest()
    check.input.SetInParent()
    check.input.update(document)
    return check


def as_authorization(document: dict[str, Json]) -> CheckRequest:
    check = CheckRequest()
    check.authorization.action = "tool:invoke"
    check.authorization.parameters.update(document)
    return check


FORMS = {"input_json": as_json, "input": as_struct, "authorization": as_authorization}


@given(st.lists(OBJECTS, min_size=1, max_size=5), st.sampled_from([*FORMS]))
def test_however_often_a_document_comes_it_is_read_alike(documents: list[dict[str, Json]], form: str) -> None:
    """In any order, among others, and in every form."""
    reader = RecentDocuments(DOCUMENTS)
    for document in [*documents, *documents, *reversed(documents)]:
        check = FORMS[form](document)
        assert reader.of_check(check)[0] == DOCUMENTS.of_check(check)


@given(OBJECTS)
def test_the_same_bytes_in_two_forms_stay_two_documents(document: dict[str, Json]) -> None:
    """Remembered are bytes of a form, so what one caller sends as a message cannot pass for the JSON of another."""
    reader = RecentDocuments(DOCUMENTS)
    checks = [form(document) for form in FORMS.values()]
    raw = [check.input.SerializeToString() for check in checks if check.HasField("input")]
    for check in [*checks, *checks, *checks]:
        assert reader.of_check(check)[0] == DOCUMENTS.of_check(check)
    for sent in raw:
        with pytest.raises(InvalidRequestError):
            reader.of_check(CheckRequest(input_json=sent))


def test_what_comes_for_the_third_time_is_not_read_again() -> None:
    reader = RecentDocuments(DOCUMENTS)
    once, twice, thrice = (reader.of_check(as_json({"user": {"id": "alice"}})) for _ in range(3))
    assert once[1] is None
    assert twice[1] is not None
    assert twice[1] is thrice[1]
    assert twice[0] is thrice[0]


def test_documents_that_repeat_are_found_again_after_any_number_that_do_not() -> None:
    """It stops looking for a while where nothing repeats, and never for good."""
    reader = RecentDocuments(DOCUMENTS)
    for number in range(5000):
        reader.of_check(as_json({"action": str(number)}))
    rounds = recent._TRIES + recent._REST
    found = [reader.of_check(as_json({"user": {"id": "alice"}}))[1] for _ in range(rounds)]
    assert found[-1] is not None


@pytest.mark.parametrize("sent", [b"{", b"[]", b'{"a": NaN}', b"[" * 20 + b"]" * 20])
def test_what_is_refused_is_refused_each_time(sent: bytes) -> None:
    reader = RecentDocuments(DOCUMENTS)
    for _ in range(3):
        with pytest.raises(InvalidRequestError, match="input_json"):
            reader.of_check(CheckRequest(input_json=sent))


def test_a_request_without_a_document_is_refused_each_time() -> None:
    reader = RecentDocuments(DOCUMENTS)
    for _ in range(3):
        with pytest.raises(InvalidRequestError, match="document"):
            reader.of_check(CheckRequest())


def test_each_policy_sees_its_own_projection_of_a_document_that_is_remembered() -> None:
    """Threads that ask different policies about one document at the same time, too."""
    reader = RecentDocuments(DOCUMENTS)
    document = {"user": {"id": "alice", "roles": ["admin"]}, "action": "tool:invoke"}
    reader.of_check(as_json(document))
    projections = [Projection([("user", "id")]), Projection([("action",)]), Projection([()])]
    wanted = [projection.project(document) for projection in projections]

    def ask(number: int) -> bool:
        _, read = reader.of_check(as_json(document))
        assert read is not None
        return all(read.projected_by(projections[it % 3]) == wanted[it % 3] for it in range(number, number + 3000))

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(ask, range(4)))


def test_what_is_remembered_is_bounded() -> None:
    """Documents that come twice, and documents that come once, in any number."""
    reader = RecentDocuments(DOCUMENTS)
    for number in range(3000):
        check = as_json({"user": {"id": f"user-{number}", "note": "x" * 400}})
        for _ in range(2):
            reader.of_check(check)
        kept = [sent for by_bytes in reader._kept.values() for sent in by_bytes]
        assert sum(map(len, kept)) <= recent._BYTES + recent._LONG
    assert len(reader._seen) == recent._SEEN
    assert any(reader._kept.values())


def test_long_documents_are_not_remembered() -> None:
    reader = RecentDocuments(DOCUMENTS)
    for form in (as_json, as_struct, as_authorization):
        for _ in range(3):
            reader.of_check(form({"text": "x" * 2 * recent._LONG}))
    assert not any(reader._kept.values())
