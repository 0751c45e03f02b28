"""Documents that come again and again, as they were read: equal bytes are decoded and projected once.

Who asks the same twice within moments, as a proxy does for each call of a session, or for all its tools at once, pays
for what differs. Documents that come once are not kept.
"""

from array import array
from typing import Final

from sark_pdp._proto.decision_pb2 import CheckRequest
from sark_pdp.model import Document
from sark_pdp.projection import Projection
from sark_pdp.transport.documents import Documents

_LONG: Final = 1024
"""Bytes of a document; a longer one is read each time."""
_BYTES: Final = 256 * 1024
"""Of all that are kept, as they were sent; read they take some 10 times as much memory, of the worst form 25 times."""
_SEEN: Final = 2048
"""Hashes of documents that came once; a later one with the same remainder takes the place of an earlier one."""
_TRIES: Final = 256
"""So many in a row that were not kept, and the next ones are not looked for: a tenth of reading them."""
_REST: Final = 1024


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

    Each statement that changes `_kept` or `_seen` is one call of C code. `_kept` is emptied when it is full.
    """

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._kept: dict[str, dict[bytes, Read]] = {"input_json": {}, "authorization": {}, "input": {}}
        self._kept_json = self._kept["input_json"]
        self._bytes = 0
        self._missed = 0
        self._resting = 0
        # By their remainder; an array, since whatever is allocated for each document would be felt by each.
        self._seen = array("q", [0]) * _SEEN

    def of_check(self, check: CheckRequest) -> tuple[Document, Read | None]:
        """The document of a request, whichever way it came, and what is kept of it. Raises InvalidRequestError."""
        field = check.WhichOneof("document")
        if field == "input_json":
            sent = check.input_json
            if self._resting > 0:
                self._resting -= 1
                return self._documents.from_json(field, sent), None
            known = self._kept_json.get(sent)
            if known is not None:
                self._missed = 0
                return known.document, known
            self._missed += 1
            if self._missed >= _TRIES:
                self._missed, self._resting = 0, _REST
            document = self._documents.from_json(field, sent)
            return document, self._remembered(self._kept_json, sent, document)
        if field is None or (value := getattr(check, field)).ByteSize() > _LONG:
            return self._documents.of_check(check), None
        kept, sent = self._kept[field], value.SerializeToString()
        known = kept.get(sent)
        if known is not None:
            return known.document, known
        document = self._documents.of_check(check)
        return document, self._remembered(kept, sent, document)

    def _remembered(self, kept: dict[bytes, Read], sent: bytes, document: Document) -> Read | None:
        # Only what comes for the second time: documents with a time in them would push out all others.
        number = hash(sent)
        place = number % _SEEN
        if self._seen[place] != number:
            self._seen[place] = number
            return None
        if len(sent) > _LONG:
            return None
        if self._bytes >= _BYTES:
            self._bytes = 0
            for each in self._kept.values():
                each.clear()
        self._bytes += len(sent)
        read = kept[sent] = Read(document)
        return read
