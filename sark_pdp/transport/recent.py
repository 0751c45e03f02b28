"""Documents that come again and again, as they were read: equal bytes are decoded and projected once.

Who asks the same twice within moments, as a proxy does for each call of a session, or for all its tools at once, pays
for what differs. Documents that come once are not kept.
"""

from typing import Final

from sark_pdp._proto.decision_pb2 import CheckRequest
from sark_pdp.model import Document
from sark_pdp.projection import Projection
from sark_pdp.transport.documents import Documents

_LONG: Final = 1024
"""Bytes of a document; a longer one is read each time."""
_BYTES: Final = 256 * 1024
"""Of all that are kept, as they were sent; read they take some 10 times as much memory, of the worst form 25 times."""
_SEEN: Final = 4096
"""Hashes of documents that came once."""


class Read:
    """A document, and what a policy reads of it. Whoever has one shares it: nothing of it may be changed."""

    __slots__ = ("_projected", "document")

    def __init__(self, document: Document) -> None:
        self.document = document
        # Both in one, for another thread may replace it at any time.
        self._projected: tuple[Projection, Document] | None = None

    def projected_by(self, projection: Projection) -> Document:
        """What a policy reads; made once, as long as no other one is asked about the same document."""
        held = self._projected
        if held is None or held[0] is not projection:
            held = self._projected = projection, projection.project(self.document)
        return held[1]


class RecentDocuments:
    """Reads the documents of requests, and remembers those that came before. Thread-safe.

    Each statement that changes `_kept` or `_seen` is one call of C code; both are emptied when they are full.
    """

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._kept: dict[str, dict[bytes, Read]] = {"input_json": {}, "authorization": {}, "input": {}}
        self._bytes = 0
        self._seen: set[int] = set()

    def of_check(self, check: CheckRequest) -> Read:
        """The document of a request, whichever way it came. Raises InvalidRequestError."""
        field = check.WhichOneof("document")
        if field == "input_json":
            sent = check.input_json
        elif field is not None and (value := getattr(check, field)).ByteSize() <= _LONG:
            sent = value.SerializeToString()
        else:
            return Read(self._documents.of_check(check))
        known = self._kept[field].get(sent)
        if known is not None:
            return known
        read = Read(self._documents.of_check(check))
        if len(sent) <= _LONG:
            self._remember(field, sent, read)
        return read

    def _remember(self, field: str, sent: bytes, read: Read) -> None:
        # Only what comes for the second time: documents with a time in them would push out all others.
        number = hash(sent)
        if number not in self._seen:
            if len(self._seen) >= _SEEN:
                self._seen.clear()
            self._seen.add(number)
            return
        if self._bytes >= _BYTES:
            self._bytes = 0
            for kept in self._kept.values():
                kept.clear()
        self._bytes += len(sent)
        self._kept[field][sent] = read
