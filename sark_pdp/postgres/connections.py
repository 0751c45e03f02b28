"""How PostgreSQL is reached: connection strings that tell no secrets, and its errors in one sentence."""

from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from sark_pdp.errors import DatabaseError, SettingsError

_CONNECT_SECONDS = 10
_SECRETS = ("password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key")


def parse_dsn(dsn: str) -> dict[str, str]:
    """The parameters of a connection string, as a URI or as `key=value`; raises SettingsError, which repeats none."""
    try:
        return {key: str(value) for key, value in conninfo_to_dict(dsn).items() if value is not None}
    except (psycopg.ProgrammingError, UnicodeError):
        # The driver's text repeats parts of the string, and that may be the password.
        raise SettingsError(
            "the connection string of PostgreSQL cannot be read; expected postgresql://USER@HOST:PORT/DATABASE, "
            "or host=HOST dbname=DATABASE user=USER"
        ) from None


def holds_secret(dsn: str) -> bool:
    """Whether a password is written in it."""
    return any(secret in parse_dsn(dsn) for secret in _SECRETS)


def without_secrets(dsn: str) -> str:
    """The same for people: `host=… dbname=…`."""
    return make_conninfo("", **{key: value for key, value in parse_dsn(dsn).items() if key not in _SECRETS})


def with_password(dsn: str, file: Path | None) -> str:
    """The connection string with the password that a file holds, read now; raises SettingsError."""
    if file is None:
        return dsn
    try:
        password = file.read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text in UTF-8"
        raise SettingsError(f"{file}: the password of PostgreSQL cannot be read: {reason}") from None
    return make_conninfo(dsn, password=password)


def read_dsn_file(file: Path) -> str:
    """The connection string on the first line of a file; raises SettingsError."""
    try:
        line = file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text in UTF-8"
        raise SettingsError(f"{file}: cannot be read: {reason}; expected a file with one connection string") from None
    if not line or "\n" in line:
        raise SettingsError(f"{file}: does not hold one line; expected a file with one connection string")
    return line


def connect(dsn: str, application: str) -> psycopg.Connection:
    """A connection in autocommit mode, known to the server as `application`; raises DatabaseError or SettingsError.

    Texts come and go in UTF-8, whatever the database is kept in.
    """
    given = {"connect_timeout": str(_CONNECT_SECONDS)} | parse_dsn(dsn) | {"client_encoding": "utf8"}
    try:
        return psycopg.connect(make_conninfo("", **given), autocommit=True, application_name=application)
    except psycopg.Error as error:
        raise database_error(f"PostgreSQL cannot be reached ({without_secrets(dsn)})", error) from error
    except UnicodeError as error:
        # Of the name service, before libpq is asked.
        raise DatabaseError(
            f"PostgreSQL cannot be reached ({without_secrets(dsn)}): there can be no host of this name"
        ) from error


def database_error(what: str, error: psycopg.Error) -> DatabaseError:
    """`what` failed, and the server's reason on one line."""
    reason = error.diag.message_primary or " ".join(str(error).split()) or type(error).__name__
    hint = f"; {error.diag.message_hint}" if error.diag.message_hint else ""
    return DatabaseError(f"{what}: {reason}{hint}")
