"""One run at a time under an object store: a lock object, held by a lease that a dead run loses.

The lock is made on the condition that there is none, and every later write of it names the version before: whoever
has lost it cannot write it. What a run is about to replace is noted in the lock itself, so that the write that decides
on the new artefacts and the proof that the run still holds the directory are one and the same.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from preprocessing.cli import UserError
from preprocessing.storage import Changed, ObjectStore, Stored

SECONDS = 90.0  # how long a hold lasts that is not renewed; renewed three times in that time
_NOBODY = b'{"process": 0, "host": "", "lease_seconds": 0, "replacing": null, "released": true}'
_WAKE = signal.SIGUSR1  # not SIGINT: a process that a shell started in its background ignores that one
_log = logging.getLogger(__name__)


class Lease:
    """A held lock object. `replacing`: what was decided and is not yet done, by this run or the one before."""

    def __init__(self, store: ObjectStore, name: str, place: str, seconds: float, flag: str = "--run_dir") -> None:
        self._store, self._name, self._place, self._seconds, self._flag = store, name, place, seconds, flag
        self._content: dict[str, Any] = {
            "host": socket.gethostname(),
            "process": os.getpid(),
            "lease_seconds": seconds,
            "replacing": None,
        }
        self._version: str | None = None
        self._until = 0.0
        self._writing = threading.Lock()
        self._stopped = threading.Event()
        self._interrupts = threading.current_thread() is threading.main_thread()
        self._lost: str | None = None

    @property
    def replacing(self) -> Any:
        return self._content["replacing"]

    @property
    def is_lost(self) -> bool:
        return self._lost is not None

    def note(self, replacing: Any) -> None:
        """Writes what is being replaced into the lock: from here on, whoever holds it next finishes that.

        Raises UserError where the hold is lost; then nothing is noted.
        """
        with self._writing:
            self.check()
            try:
                self._write(self._content | {"replacing": replacing})
            except Changed:
                self._lost = "another run has taken it over"
            self.check()

    def check(self) -> None:
        """Raises UserError where the hold is lost, or was not renewed in time."""
        if self._lost is None and time.monotonic() > self._until:
            self._lost = "it could not be renewed in time"
        if self._lost is not None:
            raise UserError(f"{self._place}: this run has lost its hold of it: {self._lost}; it replaced nothing more")

    def acquire(self) -> None:
        """Takes the lock, and goes on renewing it. Raises UserError where another run holds it."""
        for _ in range(5):
            try:
                self._write(self._content)
                break
            except Changed:
                found = self._store.read(self._name)
                if found is None:
                    continue  # released between the two requests
                self._take_over(*found)
                break
        else:
            raise self._in_use("runs that come and go")
        threading.Thread(target=self._renew, name="lease", daemon=True).start()

    def release(self) -> None:
        """Gives the lock up, unless it is lost."""
        self._stopped.set()
        with self._writing:
            if self._lost is not None or self._version is None:
                return
            try:
                if self.replacing is None:
                    self._store.delete(self._name, version=self._version)
                else:  # whoever comes next need not wait to finish what was decided
                    self._write(self._content | {"released": True})
            except (Changed, UserError) as error:
                _log.warning("%s: the lock could not be given up (%s); it runs out by itself", self._place, error)

    def _write(self, content: dict[str, Any]) -> None:
        started = time.monotonic()
        # the token tells this write from every other, so that a repeated attempt finds its own
        body = json.dumps(content | {"write": secrets.token_hex(8)}).encode()
        stored = self._store.write(self._name, body, version=self._version, patience=self._seconds / 3)
        self._content, self._version, self._until = content, stored.version, started + self._seconds

    def _take_over(self, body: bytes, stored: Stored) -> None:
        """Takes over from a run whose lease has run out. Raises UserError where it has not."""
        try:
            before = dict(json.loads(body or _NOBODY))  # a disk's lock file is empty: it came with a copied directory
            holder = f"process {before['process']} on {before['host']}"
            seconds, replacing = float(before["lease_seconds"]), before["replacing"]
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{self._place}: {self._name} is no lock of Parcours; remove it if nothing runs") from None
        if not before.get("released"):
            # both times are the store's: the clocks of two machines need not agree
            clock = f"{self._name}-{secrets.token_hex(8)}"
            now = self._store.write(clock, b"", version=None)
            self._store.delete(clock, version=now.version)
            if (now.written - stored.written).total_seconds() <= seconds:
                raise self._in_use(holder)
            _log.info("%s: taken over from a run that died (%s)", self._place, holder)
        self._version = stored.version
        try:
            self._write(self._content | {"replacing": replacing})
        except Changed:
            raise self._in_use("one that was quicker") from None

    def _in_use(self, holder: str) -> UserError:
        return UserError(
            f"{self._place}: in use by another run ({holder}); wait for it, or give this one a {self._flag} of its own "
            f"(a run that died loses its hold after {self._seconds:g} s)"
        )

    def _renew(self) -> None:
        while not self._stopped.wait(self._seconds / 3):
            with self._writing:
                if self._stopped.is_set():
                    return
                try:
                    self._write(self._content)
                except Changed:
                    self._lost = "another run has taken it over"
                except UserError as error:
                    if time.monotonic() > self._until:
                        self._lost = f"it could not be renewed in time: {error}"
                if self._lost is None:
                    continue
                if self._interrupts:  # within the lock: whoever has released it is not interrupted any more
                    main = threading.main_thread().ident
                    assert main is not None
                    signal.pthread_kill(main, _WAKE)  # out of any wait
                return


@contextmanager
def held(
    store: ObjectStore, name: str, place: str, flag: str = "--run_dir", seconds: float | None = None
) -> Iterator[Lease]:
    """Holds the lock object `name` while the body runs; errors call what it guards `place`, and what names it `flag`.

    A run in the main thread that loses its hold is interrupted at once, so that it writes nothing more. Raises
    UserError where another run holds it, or it is lost.
    """
    lease = Lease(store, name, place, SECONDS if seconds is None else seconds, flag)
    with _interruptible():
        try:
            lease.acquire()
            try:
                yield lease
            finally:
                lease.release()
        except KeyboardInterrupt:
            if lease.is_lost:
                lease.check()
            raise


@contextmanager
def _interruptible() -> Iterator[None]:
    """Within: what wakes the main thread interrupts it, as Ctrl-C would."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(_WAKE, interrupt)
    try:
        yield
    finally:
        signal.signal(_WAKE, before)
