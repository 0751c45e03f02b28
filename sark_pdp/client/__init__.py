"""The Python SDK, sync and asyncio. It denies where it cannot ask.

`messages` and `answers` turn questions into bytes and bytes into answers without any I/O; `sync` and `aio` carry the
bytes; `connection` says how.
"""

from sark_pdp.client.aio import AsyncClient
from sark_pdp.client.answers import Answer, CheckBatch, Filter
from sark_pdp.client.connection import DEFAULT_ADDRESS, Tls
from sark_pdp.client.question import Question
from sark_pdp.client.sync import Client

__all__ = ["DEFAULT_ADDRESS", "Answer", "AsyncClient", "CheckBatch", "Client", "Filter", "Question", "Tls"]
