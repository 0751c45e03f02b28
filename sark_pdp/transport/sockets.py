"""Looks at an address before a gRPC server binds it, whose own failures are hard to read.

gRPC would take over a Unix socket that another process listens on, and says of a port in use that it failed.
"""

import os
import socket
import stat
from grp import getgrnam
from pathlib import Path
from pwd import getpwnam

from sark_pdp.addresses import Address, TcpAddress, UnixAddress
from sark_pdp.errors import StartError

_CONNECT_SECONDS = 1.0


def require_free(address: Address, setting: str) -> None:
    """Raises StartError where the address cannot be listened on; removes a Unix socket that nobody listens on."""
    try:
        match address:
            case TcpAddress(host, port):
                _require_free_port(host, port)
            case UnixAddress():
                _require_free_path(address, setting)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StartError(f"{setting}: cannot listen on {address}: {reason}; free it, or set another address") from error


def give_away(path: Path, owner: str | None) -> None:
    """Makes the socket somebody else's: `user`, `user:group` or `:group`, by name or number. Raises StartError.

    Until then only this process' own user and group may connect, which may do more than that.
    """
    if owner is None:
        return
    user, _, group = owner.partition(":")
    try:
        uid = -1 if not user else int(user) if user.isdecimal() else getpwnam(user).pw_uid
        gid = -1 if not group else int(group) if group.isdecimal() else getgrnam(group).gr_gid
        # Whoever may write into the folder could have put a link there.
        os.chown(path, uid, gid, follow_symlinks=False)
    except (KeyError, OverflowError) as error:
        raise StartError(f"listen.socket_owner: there is no {owner} on this machine; use numbers") from error
    except OSError as error:
        raise StartError(
            f"listen.socket_owner: {path} cannot be given to {owner}: {error.strerror}; "
            "only root may give away, and others to a group of their own"
        ) from error


def _require_free_port(host: str, port: int) -> None:
    family, kind, protocol, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(target)


def _require_free_path(address: UnixAddress, setting: str) -> None:
    path = address.path
    if not path.parent.is_dir():
        raise StartError(f"{setting}: the folder {path.parent} of the socket does not exist; create it")
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise StartError(f"{setting}: {path} exists and is no socket; remove it, or set another path")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_CONNECT_SECONDS)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise StartError(f"{setting}: another process listens on {path}; stop it, or set another path")
