"""The files of a bundle: a gzipped tar archive, read into memory without trusting a byte of it."""

import gzip
import hashlib
import io
import os
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from sark_pdp.errors import BundleError, BundleSizeError

Label = str | Path
"""What messages call a bundle: its file, or where it came from."""

MAX_BYTES = 128 * 1024 * 1024
"""How large a bundle may be unpacked; compiled policies take about 150 KB, the rest is data."""

MAX_FILES = 20_000
"""How many files and folders a bundle may hold: each takes tarfile 0.1 ms and 1.5 KB, and 512 bytes of the archive."""

_CHUNK = 1024 * 1024
_GZIP_MAGIC = b"\x1f\x8b"
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE)
# All that tarfile raises for headers that make no sense; not every one of them is its own error.
_MALFORMED = (tarfile.TarError, EOFError, OSError, ValueError, IndexError, OverflowError, RecursionError)


def read_archive(path: Path, max_bytes: int) -> tuple[dict[str, memoryview], int]:
    """The content of each regular file by its path without a leading `/`, and the size of the archive itself, in bytes.

    Raises BundleError where it cannot be read, is damaged, unpacks to more than `max_bytes`, or holds anything but
    plain files and folders.
    """
    packed = read_packed(path, max_bytes)
    return unpack(path, packed, max_bytes), len(packed)


def read_packed(path: Path, max_bytes: int) -> bytes:
    """The bytes of the archive; of a folder, one that holds its files.

    Raises BundleError where it cannot be read or is larger than `max_bytes`.
    """
    try:
        packed = _packed_folder(path, max_bytes) if path.is_dir() else _content(path, max_bytes)
    except FileNotFoundError:
        raise BundleError(f"bundle {path}: there is no such file") from None
    except OSError as error:
        raise BundleError(f"bundle {path}: cannot be read: {error.strerror or error}") from None
    if len(packed) > max_bytes:
        raise BundleSizeError(f"bundle {path}: is larger than the {max_bytes} bytes allowed")
    return packed


def folder_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Names and paths in a fixed order; what begins with `..` is how a mounted ConfigMap keeps its contents."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".."))
        for name in sorted(names):
            file = Path(parent) / name
            if not name.startswith("..") and file.is_file():
                yield file.relative_to(folder).as_posix(), file


def unpack(label: Label, packed: bytes, max_bytes: int) -> dict[str, memoryview]:
    """The content of each regular file by its path without a leading `/`; raises BundleError as `read_archive`."""
    return _files(label, _gunzip(label, packed, max_bytes))


def unpacked_size(packed: bytes) -> int:
    """What an honest archive of less than 4 GiB says that it unpacks to, in bytes: the trailer of gzip (RFC 1952)."""
    return int.from_bytes(packed[-4:], "little")


def content_digest(files: Mapping[str, bytes | memoryview]) -> str:
    """SHA-256, in hex, over paths and contents: the same for the same files however they were packed."""
    digest = hashlib.sha256()
    for name in sorted(files):
        encoded = name.encode()
        digest.update(len(encoded).to_bytes(8) + encoded)
        digest.update(len(files[name]).to_bytes(8))
        digest.update(files[name])
    return digest.hexdigest()


def pack_archive(files: Mapping[str, bytes | memoryview], *, level: int = 9) -> bytes:
    """The gzipped tar archive of these files; the same bytes for the same files. `level` is gzip's, from 0 to 9."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(filename="", mode="wb", compresslevel=level, fileobj=packed, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name in sorted(files):
            member = tarfile.TarInfo("/" + name)  # As OPA names them; its default for mode, owner and time is fixed.
            member.size = len(files[name])
            tar.addfile(member, io.BytesIO(files[name]))
    return packed.getvalue()


def replace_file(output: Path, content: bytes) -> None:
    """Whoever reads `output` meanwhile finds the old file or the new one, whole. Raises BundleError."""
    temporary = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(output)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise BundleError(f"{output}: cannot be written: {error.strerror}") from None


def _content(file: Path, max_bytes: int) -> bytes:
    """At most one byte more than allowed."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        # Not all of the limit: a read allocates what it is asked for.
        return opened.read(min(size, max_bytes) + 1)


def _packed_folder(folder: Path, max_bytes: int) -> bytes:
    files: dict[str, bytes] = {}
    left = max_bytes
    for name, file in folder_files(folder):
        files[name] = _content(file, left)
        left -= len(files[name])
        if left < 0:
            raise BundleSizeError(f"bundle {folder}: is larger than the {max_bytes} bytes allowed")
    try:
        return pack_archive(files, level=1)
    except ValueError as error:
        raise BundleError(f"bundle {folder}: cannot be packed: {error}") from None


def _gunzip(label: Label, packed: bytes, max_bytes: int) -> bytes:
    """Never holds more than one chunk over the limit, whatever the archive would unpack to."""
    if not packed.startswith(_GZIP_MAGIC):
        raise BundleError(f"bundle {label}: is not a gzipped tar archive")
    unpacked = bytearray()
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as zipped:
            while chunk := zipped.read(_CHUNK):
                unpacked += chunk
                if len(unpacked) > max_bytes:
                    raise BundleSizeError(f"bundle {label}: unpacks to more than the {max_bytes} bytes allowed")
    except EOFError:
        raise BundleError(f"bundle {label}: is truncated; fetch or build it again") from None
    except (gzip.BadGzipFile, zlib.error):
        raise BundleError(f"bundle {label}: is damaged; fetch or build it again") from None
    return bytes(unpacked)


def _files(label: Label, unpacked: bytes) -> dict[str, memoryview]:
    view = memoryview(unpacked)
    files: dict[str, memoryview] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(unpacked), mode="r:") as tar:
            for number, member in enumerate(tar, 1):
                if number > MAX_FILES:
                    raise BundleSizeError(f"bundle {label}: holds more than {MAX_FILES} files and folders")
                # A negative size would send tarfile backwards, for ever.
                if member.size < 0:
                    raise BundleError(f"bundle {label}: the header of {member.name!r} is damaged")
                if member.isdir():
                    continue
                if member.type not in _REGULAR or member.issparse():
                    raise BundleError(f"bundle {label}: {member.name!r} is not a plain file")
                name = _clean(label, member.name)
                content = view[member.offset_data : member.offset_data + member.size]
                if len(content) != member.size:
                    raise BundleError(f"bundle {label}: is truncated within {name}; fetch or build it again")
                if name in files:
                    raise BundleError(f"bundle {label}: holds {name} twice")
                files[name] = content
            end = tar.offset
    except _MALFORMED:
        raise BundleError(f"bundle {label}: is not a tar archive inside, or a damaged one") from None
    # tarfile takes a damaged header for the end of the archive: what follows would be missing without a word.
    if unpacked[end:].strip(b"\0"):
        raise BundleError(f"bundle {label}: has a damaged header after {len(files)} files; fetch or build it again")
    return files


def _clean(label: Label, name: str) -> str:
    """`/a/b`, `./a/b` and `a/b` are one path; one that leaves the archive is refused."""
    steps: Iterable[str] = [step for step in name.split("/") if step not in ("", ".")]
    if ".." in steps or not steps or "\\" in name or not name.isprintable():
        raise BundleError(f"bundle {label}: the path {name!r} does not belong in a bundle")
    return "/".join(steps)
