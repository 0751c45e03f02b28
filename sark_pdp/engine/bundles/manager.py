"""All configured bundles: they are activated together, one change at a time."""

import threading
import time
from collections.abc import Sequence
from typing import Final, Protocol

from msgspec.structs import replace

from sark_pdp.engine.bundles.sources import FileSource, Source
from sark_pdp.engine.bundles.supply import BundleOptions, Supply
from sark_pdp.engine.policies import BundleState, LoadedPolicies, Policies
from sark_pdp.engine.preparation import Content, Prepared, PreparedBundle, prepare
from sark_pdp.errors import BundleSizeError, InvalidRequestError
from sark_pdp.model import Seconds

_RELOAD: Final = Seconds(120.0)
"""How long a caller waits for one; an activation goes on without it."""


class Observer(Protocol):
    """Whoever wants to know what became of bundles. Called by any thread, one call at a time for each bundle."""

    def activated(self, bundles: Sequence[PreparedBundle], policies: LoadedPolicies, took: Seconds) -> None:
        """New contents of these bundles answer from now on; the first time that is all of them."""

    def failed(self, name: str, error: Exception, *, news: bool) -> None:
        """What is active stays. `news`: the time before nothing failed, or something else."""


class Bundles:
    """Owns the supplies. `_lock` is held while bundles are put together and activated.

    `_active` are the last ones, written under it and read by any thread.
    """

    def __init__(
        self, policies: Policies, configured: Sequence[tuple[BundleOptions, Source]], max_bytes: int, observer: Observer
    ) -> None:
        """`configured` at least one; `max_bytes` is the most that an archive may unpack to."""
        self._policies = policies
        self._max_bytes = max_bytes
        self._observer = observer
        self._lock = threading.Lock()
        self._active: tuple[PreparedBundle, ...] = ()
        self._supplies = {
            options.name: Supply(options, source, self._accept, self._note) for options, source in configured
        }
        self._at_start = [options.name for options, source in configured if isinstance(source, FileSource)]

    def start(self) -> None:
        """Files are active when it returns; what is fetched may come later, or from what was kept.

        Raises BundleError for a file that cannot be activated, and OSError where this machine is at fault.
        """
        for name, supply in self._supplies.items():
            if name in self._at_start:
                supply.load()
            else:
                supply.load_kept()
        for supply in self._supplies.values():
            supply.start()

    def close(self, grace: Seconds) -> None:
        """Nothing is fetched or activated any more, unless an activation takes longer than `grace` seconds."""
        ends = time.monotonic() + grace
        for supply in self._supplies.values():
            supply.close(Seconds(max(ends - time.monotonic(), 0.0)))

    def states(self) -> tuple[BundleState, ...]:
        """In the order of the settings."""
        return tuple(self._state(supply) for supply in self._supplies.values())

    def reload(self, name: str) -> BundleState:
        """Asks for a bundle now, and waits until it is activated or refused. An empty name means the only one.

        Raises InvalidRequestError.
        """
        names = ", ".join(self._supplies)
        if not name and len(self._supplies) > 1:
            raise InvalidRequestError("name", f"is empty, and there are several bundles: {names}")
        supply = self._supplies.get(name) if name else next(iter(self._supplies.values()))
        if supply is None:
            raise InvalidRequestError("name", f"there is no bundle {name!r}; the configured ones are {names}")
        if supply.reload(_RELOAD):
            return self._state(supply)
        return replace(self._state(supply), error=f"it takes longer than {_RELOAD:.0f} s, and goes on")

    def ask_all_now(self) -> None:
        """The same for all, without waiting."""
        for supply in self._supplies.values():
            supply.ask_now()

    def _state(self, supply: Supply) -> BundleState:
        for bundle in self._active:
            if bundle.name == supply.name:
                return BundleState(bundle.name, bundle.revision, bundle.digest, supply.error)
        return BundleState(supply.name, error=supply.error)

    def _accept(self, supply: Supply, content: Content) -> PreparedBundle:
        """Activates it with the others; until all have come once, it is only looked through."""
        with self._lock:
            began = time.monotonic()
            contents = [content if each is supply else each.content for each in self._supplies.values()]
            present = [each for each in contents if each is not None]
            prepared = prepare(present, self._max_bytes)
            (changed,) = (bundle for bundle in prepared.bundles if bundle.name == supply.name)
            archives = content.archives[-changed.archives :]
            # Deltas are held as long as their bundle.
            if sum(map(len, archives)) > self._max_bytes:
                raise BundleSizeError(
                    f"bundle {content.label}: is larger with its deltas than the {self._max_bytes} bytes allowed"
                )
            if len(present) == len(contents):
                self._activate(prepared, began)
            supply.content = replace(content, archives=archives)
            for other in self._supplies.values():
                if other is not supply:
                    other.reconsider()
            return changed

    def _activate(self, prepared: Prepared, began: float) -> None:
        former = {bundle.name: bundle.digest for bundle in self._active}
        news = tuple(bundle for bundle in prepared.bundles if former.get(bundle.name) != bundle.digest)
        if not news:
            # The same files, packed in another way.
            return
        policies = self._policies.activate(prepared)
        self._active = prepared.bundles
        self._observer.activated(news, policies, Seconds(time.monotonic() - began))

    def _note(self, supply: Supply, error: Exception, news: bool) -> None:  # noqa: FBT001
        self._observer.failed(supply.name, error, news=news)
