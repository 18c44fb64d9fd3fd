"""The store's file: opening it, transactions, and SQLite's errors in our words.

The only file that imports sqlite3. One process has the store open at a time, and within it one
thread: the one that called `Database.open`. Nothing here waits for a lock.

What has been committed survives the death of the process at any moment. A power cut can undo the
last commits, but neither tears one nor damages the file (sqlite.org/wal.html section 3, with
synchronous NORMAL); what must survive that too calls `sync`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

from meshwalk.errors import NotOurStore, StoreError, StoreFull, StoreInUse
from meshwalk.store import schema

FILE_NAME: Final = "meshwalk.sqlite3"
# Beside the file while it is open (-wal), after a crash (-journal), or never in our mode (-shm).
FILE_NAMES: Final = tuple(FILE_NAME + end for end in ("", "-wal", "-shm", "-journal"))
FOLDER_RIGHTS: Final = 0o700  # the file holds the private key, and who talked with whom
FILE_RIGHTS: Final = 0o600  # as above
# What a log that once grew is cut back to. SQLite's own mark for moving the log into the file,
# 1000 pages of 4096 bytes (sqlite.org/pragma.html, wal_autocheckpoint).
LOG_BYTES_KEPT: Final = 4 << 20
INTEGER_MAX: Final = 2**63 - 1  # sqlite.org/datatype3.html: 8 bytes, with a sign
_U64_SIZE: Final = 1 << 64  # as U64 of wire/frames.py

Value: TypeAlias = bytes | str | int | float | None
Row: TypeAlias = tuple[Any, ...]


class Database:
    """An open store. Every method raises `StoreError` or a subclass, and nothing else of SQLite."""

    def __init__(self, connection: sqlite3.Connection, place: str) -> None:
        self._connection: sqlite3.Connection | None = connection
        self._place = place
        self._depth = 0

    @classmethod
    def open(cls, folder: Path | None) -> Database:
        """Open the store in `folder`, which is made if missing; None is a new store in memory.

        A folder that is made is for this user alone, and so is the file in any case. The tables
        are brought to the newest version. Raises `StoreInUse`, `NotOurStore` (left untouched),
        `StoreFull`, or `StoreError` when the folder cannot be used or the file is damaged. Two
        that open the same store in the same instant may both get `StoreInUse`.
        """
        place = "memory" if folder is None else str(folder / FILE_NAME)
        if folder is not None:
            _prepare(folder)
        with _in_our_words(place):
            connection = sqlite3.connect(
                ":memory:" if folder is None else place, timeout=0, isolation_level=None
            )
        database = cls(connection, place)
        try:
            database._begin_use(folder)
        except BaseException:
            connection.close()
            raise
        return database

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what the block does when it ends, or undo it when it raises.

        May be nested: an inner block that raises undoes its own part alone.
        """
        nested = self._depth > 0
        self.execute("SAVEPOINT inside" if nested else "BEGIN IMMEDIATE")
        self._depth += 1
        try:
            yield
            self.execute("RELEASE inside" if nested else "COMMIT")
        except BaseException:
            self._undo(nested)
            raise
        finally:
            self._depth -= 1

    def execute(self, statement: str, values: Sequence[Value] = ()) -> int:
        """Run one statement; the number of rows it changed, or -1 for one that changes none."""
        with _in_our_words(self._place):
            return self._open_connection().execute(statement, values).rowcount

    def execute_many(self, statement: str, rows: Iterable[Sequence[Value]]) -> int:
        """Run one statement for each of `rows`; the number of rows changed in all.

        Use a `transaction` around it: else each is a commit of its own, and an error leaves those
        before it done.
        """
        with _in_our_words(self._place):
            return self._open_connection().executemany(statement, rows).rowcount

    def query(self, statement: str, values: Sequence[Value] = ()) -> list[Row]:
        """All rows that one statement gives."""
        with _in_our_words(self._place):
            return self._open_connection().execute(statement, values).fetchall()

    def sync(self) -> None:
        """Have what is committed survive a power cut too. Slow: waits for the disk.

        Raises `StoreError` within a transaction.
        """
        if self._depth:
            raise StoreError("sync within a transaction, which is not committed yet")
        # A checkpoint syncs the log, copies it into the file and syncs that (wal.html section 3).
        self.query("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Fold the log into the file and let go of both. May be called again; does not fail.

        What a full disk keeps from being folded in stays in the log and is read at the next open.
        """
        connection, self._connection = self._connection, None
        if connection is None:
            return
        with contextlib.suppress(StoreError), _in_our_words(self._place):
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        with contextlib.suppress(StoreError), _in_our_words(self._place):
            connection.close()

    def _open_connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreError(f"the store {self._place} has been closed")
        return self._connection

    def _begin_use(self, folder: Path | None) -> None:
        # Before anything is read: in this order SQLite takes the lock at the first access, keeps
        # it, and needs no -shm file (sqlite.org/wal.html section 8).
        self.query("PRAGMA locking_mode = EXCLUSIVE")
        version = self._checked_version()
        if folder is not None:
            _tighten_rights(folder)
        self.query("PRAGMA journal_mode = WAL")
        self.execute("PRAGMA synchronous = NORMAL")
        self.execute("PRAGMA foreign_keys = ON")
        self.query(f"PRAGMA journal_size_limit = {LOG_BYTES_KEPT}")
        self._migrate(version)

    def _checked_version(self) -> int:
        """The number of migrations that the file has had. Raises `NotOurStore`."""
        owner = self.query("PRAGMA application_id")[0][0]
        version: int = self.query("PRAGMA user_version")[0][0]
        newest = len(schema.MIGRATIONS)
        if owner == 0:
            # A new file, or one that another program made without saying so.
            if version or self.query("SELECT 1 FROM sqlite_master LIMIT 1"):
                raise _not_ours(self._place, "it holds another program's tables")
            return 0
        if owner != schema.APPLICATION_ID:
            raise _not_ours(self._place, f"it belongs to application {owner:#x}")
        if version > newest:
            raise NotOurStore(
                f"{self._place} was written by a newer meshwalk (version {version} of the store, "
                f"and this one knows {newest}); update meshwalk"
            )
        return version

    def _migrate(self, version: int) -> None:
        # The transaction is opened even when nothing is to do: a store that cannot be written, or
        # is in use, must say so now and not at the first message.
        with self.transaction():
            if version == len(schema.MIGRATIONS):
                return
            for migration in schema.MIGRATIONS[version:]:
                for statement in migration:
                    self.execute(statement)
            # Both numbers are in the file's header and are part of the transaction.
            self.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
            self.execute(f"PRAGMA user_version = {len(schema.MIGRATIONS)}")

    def _undo(self, nested: bool) -> None:
        connection = self._connection
        # On some errors, a full disk among them, SQLite has undone everything by itself
        # (sqlite.org/lang_transaction.html section 3), and there is nothing left to undo.
        if connection is None or not connection.in_transaction:
            return
        # The error that led here is the one to tell.
        with contextlib.suppress(StoreError):
            if nested:
                self.execute("ROLLBACK TO inside")
                self.execute("RELEASE inside")
            else:
                self.execute("ROLLBACK")


def as_signed(value: int) -> int:
    """A number of 64 bits without a sign as SQLite can hold it: the upper half is negative.

    For numbers that strangers choose: all 64 bits must fit, or they could make writes fail.
    """
    return int.from_bytes(value.to_bytes(8), signed=True)


def as_unsigned(value: int) -> int:
    """What `as_signed` was given."""
    return value % _U64_SIZE


def _prepare(folder: Path) -> None:
    """See that the folder and the file exist and can be written."""
    path = folder / FILE_NAME
    try:
        folder.mkdir(FOLDER_RIGHTS, parents=True, exist_ok=True)
        # Only ever a file that did not exist: closing a descriptor of one that this process has
        # open would drop SQLite's locks on it (sqlite.org/howtocorrupt.html section 2.2).
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, FILE_RIGHTS))
    except FileExistsError:
        raise StoreError(f"{folder} is a file; the store needs a folder") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        raise _from_system(folder, error) from error
    # SQLite would fall back to reading, and fail at the first write.
    if not (os.access(folder, os.W_OK | os.X_OK) and os.access(path, os.R_OK | os.W_OK)):
        raise StoreError(f"the store {path} cannot be written; check the rights of file and folder")


def _tighten_rights(folder: Path) -> None:
    for name in FILE_NAMES:
        path = folder / name
        try:
            if path.stat().st_mode & 0o077:
                path.chmod(FILE_RIGHTS)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise _from_system(folder, error) from error


def _from_system(folder: Path, error: OSError | ValueError) -> StoreError:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull(f"no space is left for the store in {folder}; free some and start again")
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return StoreError(f"the folder {folder} cannot hold a store: {reason}")


def _not_ours(place: str, why: str) -> NotOurStore:
    return NotOurStore(f"{place} is not a meshwalk store: {why}; move it or use another folder")


@contextmanager
def _in_our_words(place: str) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, sqlite3.Warning) as error:
        raise _from_sqlite(place, error) from error
    except (OverflowError, UnicodeError) as error:
        # An integer beyond 64 bits or a lone surrogate: the value's fault, not the file's.
        raise StoreError(f"the store cannot hold this value: {error}") from error


def _from_sqlite(place: str, error: sqlite3.Error | sqlite3.Warning) -> StoreError:
    # The low byte is the kind, the rest detail (sqlite.org/rescode.html). Errors of the Python
    # module itself, such as use from another thread, have no code.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return StoreFull(f"no space is left for the store {place}; free some")
    if code == sqlite3.SQLITE_BUSY:
        return StoreInUse(
            f"the store in {Path(place).parent} is in use by another process; "
            "stop that one or use another folder"
        )
    if code == sqlite3.SQLITE_NOTADB:
        return _not_ours(place, "it is no SQLite file")
    if code == sqlite3.SQLITE_CORRUPT:
        return StoreError(f"the store {place} is damaged ({error}); restore a copy or move it away")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN):
        return StoreError(f"the store {place} cannot be opened for writing: {error}")
    return StoreError(f"the store {place} failed: {error}")
