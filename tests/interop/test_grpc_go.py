"""grpc-go's interoperability client gets what it expects over both carriers.

Of its cases these cannot be carried, or do not concern a listener:

- `client_streaming`: many messages are answered with one; our streams answer each (`Kind.STREAM`).
- `compute_engine_creds`, `service_account_creds`, `jwt_token_creds`, `per_rpc_creds`, `oauth2_auth_token`,
  `google_default_credentials`, `compute_engine_channel_credentials`: need Google's servers and accounts.
- `orca_per_rpc`, `orca_oob`: load reports for load balancers, which a sidecar does not make.
"""

import subprocess
from pathlib import Path

import pytest

from tests.fix_interop import Peer

CASES = [
    "empty_unary",
    "large_unary",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "timeout_on_sleeping_server",
    "cancel_after_begin",
    "cancel_after_first_response",
    "status_code_and_message",
    "special_status_message",
    "custom_metadata",
    "unimplemented_method",
    "unimplemented_service",
    "pick_first_unary",
]


@pytest.mark.parametrize("case", CASES)
def test_the_client_of_grpc_for_go_is_content(peer: Peer, grpc_client: Path, case: str) -> None:
    ran = subprocess.run(
        [grpc_client, f"-server_port={peer.port}", "-server_host=127.0.0.1", f"-test_case={case}"],
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert ran.returncode == 0, ran.stderr
