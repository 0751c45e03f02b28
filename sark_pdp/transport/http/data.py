"""`/v1/data/{path}`: OPA's data API, as far as it asks for a decision with `POST`.

<https://www.openpolicyagent.org/docs/rest-api#get-a-document-with-input>
"""

from typing import Final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from sark_pdp.model import Decision, Request
from sark_pdp.transport.http.answers import data_answer, encode
from sark_pdp.transport.http.asking import Control, decoded
from sark_pdp.transport.http.endpoint import Call
from sark_pdp.transport.http.single import Single


class _Body(Struct, frozen=True):
    """What OPA's clients send."""

    input: Raw | UnsetType = UNSET


_bodies: Final = msgspec.json.Decoder(_Body)


class Data(Single):
    """What an entrypoint makes of `input`; the path names it."""

    path = "/v1/data/{path:path}"

    def _request(self, call: Call, body: bytes) -> Request:
        policies = self._asking.service.active()
        name = call.path.strip("/")
        # Asked for first: without a name the default would be asked, which OPA would not.
        policies.entrypoint(name)
        stated = decoded(_bodies, "body", body) if body else _Body()
        document = {} if stated.input is UNSET else self._asking.documents.from_json("input", bytes(stated.input))
        return self._asking.request(call, document, len(body), Control(policy=name), policies)

    def _encoded(self, request: Request, decision: Decision) -> bytes:
        return encode(data_answer(decision))
