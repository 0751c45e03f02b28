"""The life of one configured bundle: when its source is asked, what is active of it, and what was wrong last."""

import logging
import random
import threading
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Final

from msgspec import Struct

from sark_pdp.engine.bundles.keeping import Keeper, Kept
from sark_pdp.engine.bundles.sources import InterruptedFetchError, Source, Versions
from sark_pdp.engine.preparation import Content, PreparedBundle
from sark_pdp.engine.signatures import read_keys
from sark_pdp.errors import BundleError
from sark_pdp.model import Seconds

_MOST_DELTAS: Final = 64
"""After so many a whole bundle is asked for: each activation applies all of them, and each start."""
_FIRST_RETRY: Final = 0.5
"""Seconds; doubled with each failure in a row, up to the interval."""
_LONGEST_RETRY: Final = 60.0
_REFUSAL: Final = 300.0
"""Seconds that a refusal counts for the same content; then it is tried again, for a busy machine or another bundle may
have been the reason."""
_LEAST_PAUSE: Final = 0.1
"""Seconds between two long polls: a server that answers at once must not keep a core busy."""
_JITTER: Final = 0.2
"""Of the interval, to both sides: sidecars that start together do not ask together for ever."""

_log = logging.getLogger(__name__)


class BundleOptions(Struct, frozen=True):
    """How one bundle is kept up to date."""

    name: str
    interval: Seconds
    """Between two looks; zero: only when told to."""
    wait: Seconds = Seconds(0.0)
    """How long the source may hold a question back until there is news."""
    key_file: Path | None = None
    """Of `read_keys`; read for each content, for keys are replaced."""
    keeper: Keeper | None = None


class _Refusal(Struct, frozen=True):
    """What was delivered last and is not worth another look for some time."""

    digest: bytes
    error: BundleError
    until: float
    """On `time.monotonic()`."""


Accept = Callable[["Supply", Content], PreparedBundle]
"""Makes a content the active one. Raises BundleError, or OSError of this machine, and nothing changed."""
Note = Callable[["Supply", Exception, bool], None]
"""Told of each failure, and whether it is news."""


class Supply:
    """One bundle. Its thread fetches and activates, and alone writes what others read without a lock: `_error`,
    `_refused`. `_changed` guards what they ask for."""

    def __init__(self, options: BundleOptions, source: Source, accept: Accept, note: Note) -> None:
        self.name = options.name
        self.content: Content | None = None
        """What is active, or waits for the other bundles; written under the lock of whoever accepts."""
        self._options = options
        self._source = source
        self._accept = accept
        self._note = note
        self._versions = Versions()
        self._refused: _Refusal | None = None
        self._loaded = False
        self._digest = ""
        self._error = ""
        self._changed = threading.Condition()
        self._asked = 0
        self._answered = 0
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=f"bundle {options.name}", daemon=True)

    @property
    def error(self) -> str:
        """Why what was delivered last is not used, or why nothing is delivered; empty where all is well."""
        return self._error

    def load(self) -> None:
        """Asks the source once, before the thread is started. Raises BundleError, and OSError of this machine."""
        self._look(Seconds(0.0))
        self._loaded = True

    def load_kept(self) -> None:
        """Begins with what was kept, where there is something good."""
        keeper = self._options.keeper
        kept = keeper.load(self._source.label) if keeper is not None else None
        if kept is None:
            return
        try:
            self._take(kept.archives, kept.version)
        except (BundleError, OSError) as error:
            _log.warning("a kept bundle is not used", extra={"bundle": self.name, "reason": str(error)})

    def start(self) -> None:
        """From now on it is kept up to date."""
        self._thread.start()

    def reload(self, timeout: Seconds) -> bool:
        """Asks the source now, and waits; False where that takes longer than `timeout` seconds."""
        with self._changed:
            self._asked += 1
            wanted = self._asked
            self._changed.notify_all()
        self._source.interrupt()
        with self._changed:
            return self._changed.wait_for(lambda: self._answered >= wanted or self._closing, timeout)

    def ask_now(self) -> None:
        """The same without waiting."""
        self.reload(Seconds(0.0))

    def reconsider(self) -> None:
        """Looks again at what was refused, if something was: another bundle changed, which may have been the reason."""
        if self._refused is not None:
            self.ask_now()

    def close(self, timeout: Seconds) -> None:
        """Ends the thread, which may be in the middle of an activation: that is left alone after `timeout` seconds."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._source.interrupt()
        if self._thread.is_alive():
            self._thread.join(timeout)

    # What follows runs on the thread, or before it is started.

    def _run(self) -> None:
        failures = 0
        pause = self._interval() if self._loaded else 0.0
        while True:
            asked = self._pause(pause)
            if self._closing:
                return
            wait = self._options.wait
            if asked > self._answered:
                wait = Seconds(0.0)
                self._forget_refusal()
            began = time.monotonic()
            try:
                news = self._look(wait)
            except InterruptedFetchError:
                pause = 0.0
                continue
            except Exception as error:  # noqa: BLE001  # a thread that ends would freeze the policies in silence
                self._fail(error)
                failures += 1
                pause = self._retry(failures, error)
            else:
                failures = 0
                held_back = wait and time.monotonic() - began >= wait / 2
                pause = _LEAST_PAUSE if self._options.wait and (news or held_back) else self._interval()
            with self._changed:
                self._answered = max(self._answered, asked)
                self._changed.notify_all()

    def _pause(self, seconds: float | None) -> int:
        """Waits until it is time, or somebody asks; how many questions have to be answered then."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._asked > self._answered, seconds)
            return self._asked

    def _interval(self) -> float | None:
        interval = self._options.interval
        return interval * random.uniform(1 - _JITTER, 1 + _JITTER) if interval else None  # noqa: S311

    def _retry(self, failures: int, error: Exception) -> float | None:
        longest = self._options.interval or (_LONGEST_RETRY if self._options.wait else 0.0)
        if not longest:
            return None
        if not isinstance(error, BundleError):
            # This machine is at fault: a child that memory is lacking for, say, is not started each second.
            longest = max(longest, _LONGEST_RETRY)
        return min(longest, _FIRST_RETRY * 2.0 ** min(failures - 1, 16)) * random.uniform(0.5, 1.0)  # noqa: S311

    def _look(self, wait: Seconds) -> bool:
        """Asks the source and takes what is new; whether something was."""
        if self._refused is not None and time.monotonic() > self._refused.until:
            self._forget_refusal()
        delivery = self._source.fetch(self._versions, wait)
        if delivery.packed is None:
            if delivery.version == self._versions.active:
                # What was refused is gone.
                self._refused = None
            self._error = "" if self._refused is None else str(self._refused.error)
            return False
        return self._receive(delivery.packed, delivery.version)

    def _receive(self, packed: bytes, version: str) -> bool:
        self._seen(version)
        held = () if self.content is None else self.content.archives
        digest = sha256(packed).digest()
        if held and digest == sha256(held[-1]).digest():
            self._refused = None
            self._activated(version)
            self._error = ""
            return False
        if self._refused is not None and digest == self._refused.digest:
            raise self._refused.error
        try:
            news = self._take((*held, packed), version)
        except BundleError as error:
            self._refused = _Refusal(digest, error, time.monotonic() + _REFUSAL)
            # A delta may be refused for what it was applied to, or since the key is another one: a whole bundle helps.
            self._versions = Versions(self._versions.active, version, whole=True)
            raise
        except BaseException:
            # Not for what it holds: the same is tried again.
            self._seen("")
            raise
        self._refused = None
        return news

    def _take(self, archives: tuple[bytes, ...], version: str) -> bool:
        if len(archives) > _MOST_DELTAS + 2:
            raise BundleError(f"more than {_MOST_DELTAS} deltas came in a row, and no whole bundle")
        key_file = self._options.key_file
        keys = None if key_file is None else read_keys(key_file)
        content = Content(self.name, self._source.label, archives, keys)
        prepared = self._accept(self, content)
        self._activated(version)
        self._error = ""
        if self._options.keeper is not None and self.content is not None:
            self._options.keeper.store(Kept(self._source.label, version, self.content.archives))
        former, self._digest = self._digest, prepared.digest
        return prepared.digest != former

    def _seen(self, version: str) -> None:
        self._versions = Versions(self._versions.active, version, self._versions.whole)

    def _activated(self, version: str) -> None:
        whole = self.content is not None and len(self.content.archives) > _MOST_DELTAS
        self._versions = Versions(version, self._versions.seen or version, whole)

    def _forget_refusal(self) -> None:
        self._refused = None
        # A file counts as unseen then, and is read again.
        self._seen("")

    def _fail(self, error: Exception) -> None:
        text = str(error) or type(error).__name__
        news = text != self._error
        self._error = text
        self._note(self, error, news)
