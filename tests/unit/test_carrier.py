"""Which server carries the calls, with and without the front."""

import sys

import pytest

from sark_pdp.errors import StartError
from sark_pdp.transport.carrier import server_kind
from sark_pdp.transport.grpc_server import GrpcServer


@pytest.fixture
def without_front(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "sark_pdp.transport.front_server", raising=False)
    monkeypatch.setitem(sys.modules, "sark_pdp._front", None)


def test_grpcio_can_be_asked_for() -> None:
    assert server_kind("grpcio") is GrpcServer


@pytest.mark.parametrize("transport", ["auto", "front"])
def test_the_front_is_taken_where_it_is_built(transport: str) -> None:
    pytest.importorskip("sark_pdp._front", reason="the front was not built")
    assert server_kind(transport).__name__ == "FrontServer"  # type: ignore[arg-type,attr-defined]


@pytest.mark.usefixtures("without_front")
def test_without_the_front_auto_is_grpcio_and_asking_for_it_stops_the_start() -> None:
    assert server_kind("auto") is GrpcServer
    with pytest.raises(StartError, match="transport: the front was not built"):
        server_kind("front")
