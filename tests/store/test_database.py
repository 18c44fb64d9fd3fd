"""The store's file: rights, locks, owners, migrations, full and damaged disks."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meshwalk.errors import NotOurStore, StoreError, StoreFull, StoreInUse
from meshwalk.store import schema
from meshwalk.store.database import FILE_NAME, Database

NEWEST = len(schema.MIGRATIONS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "node"


@pytest.fixture
def memory() -> Iterator[Database]:
    database = Database.open(None)
    yield database
    database.close()


def run(script: str, *args: object, wrapper: tuple[str, ...] = ()) -> str:
    """The output of a Python program in another process, which must succeed."""
    done = subprocess.run(
        [*wrapper, sys.executable, "-c", script, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def build_version(folder: Path, version: int) -> None:
    """A store as the meshwalk of that many migrations left it; 0 is a file with nothing in it."""
    folder.mkdir(parents=True)
    connection = sqlite3.connect(folder / FILE_NAME)
    for migration in schema.MIGRATIONS[:version]:
        for statement in migration:
            connection.execute(statement)
    if version:
        connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {version}")
    connection.commit()
    connection.close()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def shape(database: Database) -> list[tuple[str, str]]:
    rows = database.query("SELECT name, coalesce(sql, '') FROM sqlite_master ORDER BY name")
    return [(name, sql) for name, sql in rows]


def put(database: Database, key: str, value: str = "") -> None:
    database.execute("INSERT INTO settings VALUES (?, ?)", (key, value))


def keys(database: Database) -> list[str]:
    return [key for (key,) in database.query("SELECT key FROM settings ORDER BY key")]


# Opening and closing.


def test_what_is_committed_is_there_at_the_next_open(folder: Path) -> None:
    database = Database.open(folder)
    put(database, "a", "1")
    database.close()
    database.close()
    database = Database.open(folder)
    assert database.query("SELECT key, value FROM settings") == [("a", "1")]
    assert database.query("PRAGMA journal_mode") == [("wal",)]
    assert database.query("PRAGMA synchronous") == [(1,)]
    assert database.query("PRAGMA foreign_keys") == [(1,)]
    assert database.query("PRAGMA busy_timeout") == [(0,)]
    database.close()
    assert names(folder) == [FILE_NAME]


def test_a_closed_store_says_so(memory: Database) -> None:
    memory.close()
    with pytest.raises(StoreError, match="has been closed"):
        put(memory, "a")
    with pytest.raises(StoreError, match="has been closed"), memory.transaction():
        pass


def test_only_this_user_can_read_folder_and_files(folder: Path) -> None:
    before = os.umask(0)
    try:
        database = Database.open(folder)
        put(database, "a")
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o700
    found = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    database.close()
    assert found == {FILE_NAME: 0o600, f"{FILE_NAME}-wal": 0o600}


def test_rights_that_are_too_wide_are_tightened(folder: Path) -> None:
    build_version(folder, NEWEST)
    connection = sqlite3.connect(folder / FILE_NAME)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    (folder / FILE_NAME).chmod(0o644)
    folder.chmod(0o755)
    database = Database.open(folder)
    found = {path.stat().st_mode & 0o777 for path in folder.iterdir()}
    database.close()
    assert found == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o755, "a folder that was there is its owner's affair"


def test_a_second_open_in_the_same_process_is_refused_and_takes_no_lock_away(folder: Path) -> None:
    database = Database.open(folder)
    with pytest.raises(StoreInUse) as caught:
        Database.open(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert run(OPEN, folder) == "StoreInUse"  # POSIX drops a process's locks when it closes a file
    put(database, "a")
    database.close()
    assert run(OPEN, folder) == "opened"


OPEN = """
import sys
from pathlib import Path
from meshwalk.errors import MeshwalkError
from meshwalk.store.database import Database
try:
    Database.open(Path(sys.argv[1])).close()
except MeshwalkError as error:
    print(type(error).__name__)
else:
    print("opened")
"""


@pytest.mark.parametrize("version", [0, NEWEST])
def test_a_store_in_use_elsewhere_is_refused(folder: Path, version: int) -> None:
    build_version(folder, version)
    hold = OPEN.replace(".close()", "; print('held', flush=True); input()")
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(StoreInUse, match="another process"):
            Database.open(folder)
        holder.kill()
    Database.open(folder).close()


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="is a file"):
        Database.open(tmp_path / "file")
    with pytest.raises(StoreError, match="Not a directory"):
        Database.open(tmp_path / "file" / "below")
    (tmp_path / "node" / FILE_NAME).mkdir(parents=True)
    with pytest.raises(StoreError, match="cannot be opened"):
        Database.open(tmp_path / "node")
    with pytest.raises(StoreError, match="null"):
        Database.open(tmp_path / "a\0b")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_rights(folder: Path) -> None:
    build_version(folder, NEWEST)
    folder.chmod(0o500)
    with pytest.raises(StoreError, match="rights"):
        Database.open(folder)
    (folder / FILE_NAME).chmod(0o400)
    folder.chmod(0o700)
    with pytest.raises(StoreError, match="rights"):
        Database.open(folder)
    folder.chmod(0o500)
    with pytest.raises(StoreError, match="Permission denied"):
        Database.open(folder / "below")


# Whose file it is.


def test_the_application_id_is_what_its_comment_says() -> None:
    digest = hashlib.sha256(b"meshwalk store").digest()
    assert int.from_bytes(digest[:4], "big") & 0x7FFFFFFF == schema.APPLICATION_ID


@pytest.mark.parametrize("garbage", [b"xy", b"not a database\n" * 5, b"\xff" * 10_000])
def test_a_file_that_is_no_database_is_left_alone(folder: Path, garbage: bytes) -> None:
    folder.mkdir()
    path = folder / FILE_NAME
    path.write_bytes(garbage)
    path.chmod(0o644)
    with pytest.raises(NotOurStore, match="no SQLite file"):
        Database.open(folder)
    assert path.read_bytes() == garbage
    assert path.stat().st_mode & 0o777 == 0o644
    assert names(folder) == [FILE_NAME]


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("CREATE TABLE cookies (a)", "another program's tables"),
        ("PRAGMA user_version = 3", "another program's tables"),
        ("PRAGMA application_id = 0x47504b47", "application 0x47504b47"),
        (f"PRAGMA application_id = {schema.APPLICATION_ID}; PRAGMA user_version = 99", "newer"),
    ],
)
def test_another_programs_database_is_left_alone(folder: Path, statement: str, why: str) -> None:
    folder.mkdir()
    connection = sqlite3.connect(folder / FILE_NAME)
    connection.executescript(statement)
    connection.close()
    before = (folder / FILE_NAME).read_bytes()
    with pytest.raises(NotOurStore, match=why):
        Database.open(folder)
    assert (folder / FILE_NAME).read_bytes() == before
    assert names(folder) == [FILE_NAME]


# Migrations.


@pytest.mark.parametrize("version", range(NEWEST + 1))
def test_every_earlier_version_becomes_the_newest(
    folder: Path, memory: Database, version: int
) -> None:
    build_version(folder, version)
    for _ in range(2):
        database = Database.open(folder)
        found = shape(database)
        numbers = database.query("PRAGMA user_version"), database.query("PRAGMA application_id")
        database.close()
        assert found == shape(memory)
        assert numbers == ([(NEWEST,)], [(schema.APPLICATION_ID,)])


def test_a_migration_keeps_the_rows_or_changes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database.open(folder)
    put(database, "a")
    database.close()
    before = schema.MIGRATIONS
    more = ("ALTER TABLE settings ADD COLUMN since REAL NOT NULL DEFAULT 1.5",)
    monkeypatch.setattr(schema, "MIGRATIONS", (*before, more, ("CREATE TABLE identity (a)",)))
    with pytest.raises(StoreError, match="already exists"):
        Database.open(folder)
    monkeypatch.setattr(schema, "MIGRATIONS", before)
    database = Database.open(folder)
    assert database.query("SELECT * FROM settings") == [("a", "")]
    database.close()
    monkeypatch.setattr(schema, "MIGRATIONS", (*before, more))
    database = Database.open(folder)
    assert database.query("SELECT * FROM settings") == [("a", "", 1.5)]
    database.close()


# Transactions and errors.


def test_a_transaction_is_whole_or_nothing(memory: Database) -> None:
    def put_all(*wanted: str) -> None:
        with memory.transaction():
            for key in wanted:
                put(memory, key)

    with pytest.raises(StoreError, match="UNIQUE"):
        put_all("a", "a")
    assert keys(memory) == []
    with memory.transaction():
        put(memory, "b")
        with pytest.raises(StoreError, match="UNIQUE"):
            put_all("c", "b")
        put_all("d")
    assert keys(memory) == ["b", "d"]

    def put_inside_and_fail() -> None:
        with memory.transaction():
            put_all("e")
            raise KeyError

    with pytest.raises(KeyError):
        put_inside_and_fail()
    assert keys(memory) == ["b", "d"]


def test_a_commit_that_fails_is_undone(memory: Database) -> None:
    memory.execute("CREATE TABLE child (a REFERENCES settings (key) DEFERRABLE INITIALLY DEFERRED)")
    with pytest.raises(StoreError, match="FOREIGN KEY"), memory.transaction():
        memory.execute("INSERT INTO child VALUES ('nobody')")
    with memory.transaction():
        put(memory, "a")
    assert memory.query("SELECT * FROM child") == []


def test_sync_is_for_what_is_committed(memory: Database) -> None:
    with memory.transaction(), pytest.raises(StoreError, match="within a transaction"):
        memory.sync()
    memory.sync()


@pytest.mark.parametrize("value", [2**63, "\ud800", object(), "x" * 1000])
def test_values_and_statements_that_sqlite_refuses(memory: Database, value: Any) -> None:
    assert memory._connection is not None
    memory._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 999)
    with pytest.raises(StoreError):
        memory.execute("INSERT INTO settings VALUES ('a', ?)", (value,))
    with pytest.raises(StoreError):
        memory.execute_many("INSERT INTO settings VALUES ('a', ?)", [(value,)])
    with pytest.raises(StoreError):
        memory.query("SELECT 1; SELECT 2")
    assert keys(memory) == []


def test_another_thread_is_refused(memory: Database) -> None:
    caught: list[BaseException] = []

    def other() -> None:
        try:
            memory.query("SELECT 1")
        except StoreError as error:
            caught.append(error)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert "thread" in str(caught[0])


def test_a_damaged_page_is_a_store_error(folder: Path) -> None:
    database = Database.open(folder)
    for number in range(50):
        put(database, f"{number:04}", "x" * 1000)
    size = database.query("PRAGMA page_size")[0][0]
    root = database.query("SELECT rootpage FROM sqlite_master WHERE name = 'settings'")[0][0]
    database.close()
    with (folder / FILE_NAME).open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xa5" * size)
    database = Database.open(folder)
    with pytest.raises(StoreError, match="damaged"):
        keys(database)
    with pytest.raises(StoreError, match="damaged"):
        put(database, "a")
    database.close()
    with (folder / FILE_NAME).open("r+b") as file:
        file.seek(100)  # behind the header: the tree of the tables themselves
        file.write(b"\xa5" * (size - 100))
    with pytest.raises(StoreError, match="damaged"):
        Database.open(folder)


# A full disk, and one that cannot be written.


def test_a_full_store_goes_on_when_there_is_room_again(folder: Path) -> None:
    database = Database.open(folder)
    database.query(f"PRAGMA max_page_count = {database.query('PRAGMA page_count')[0][0] + 4}")
    rows = [(str(number), "x" * 1000) for number in range(100)]
    with pytest.raises(StoreFull, match="no space"), database.transaction():
        database.execute_many("INSERT INTO settings VALUES (?, ?)", rows)
    assert keys(database) == []
    with database.transaction():
        put(database, "small")
    database.query("PRAGMA max_page_count = 1000000")
    put(database, "large", "x" * 100_000)
    assert keys(database) == ["large", "small"]
    database.close()


def can_mount() -> bool:
    unshare = shutil.which("unshare")
    if unshare is None or sys.platform != "linux":
        return False
    attempt = [unshare, "-m", "mount", "-t", "tmpfs", "-o", "size=64k", "none", "/mnt"]
    return subprocess.run(attempt, capture_output=True, check=False).returncode == 0


MOUNTED = """
import os, subprocess, sys
from pathlib import Path
from meshwalk.errors import StoreError, StoreFull
from meshwalk.store.database import Database

def mount(*options):
    subprocess.run(["mount", "-t", "tmpfs", *options, "none", sys.argv[1]], check=True)

def refused(folder):
    try:
        Database.open(folder)
    except StoreError as error:
        return type(error).__name__, str(error)

mount("-o", "size=256k")
disk = Path(sys.argv[1])
node = disk / "node"
database = Database.open(node)
filler = disk / "filler"

def fill():
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass

def write(key):
    with database.transaction():
        for part in range(20):
            database.execute(
                "INSERT INTO settings VALUES (?, ?)", (f"{key}{part}", "x" * 1000)
            )

def rows():
    return database.query("SELECT count(*) FROM settings")[0][0]

write("a")
fill()
try:
    write("b")
except StoreFull:
    pass
else:
    raise SystemExit("a full disk was not noticed")
assert rows() == 20, rows()
assert refused(disk / "new")[0] == "StoreFull", refused(disk / "new")
database.close()
database = Database.open(node)
assert rows() == 20, rows()
filler.unlink()
write("b")
assert rows() == 40, rows()
database.close()
subprocess.run(["mount", "-o", "remount,ro", sys.argv[1]], check=True)
for folder in (node, disk / "other"):
    name, text = refused(folder)
    assert name == "StoreError" and str(folder) in text, (name, text)
subprocess.run(["mount", "-o", "remount,rw", sys.argv[1]], check=True)

node.chmod(0o555)
disk.chmod(0o555)
os.chown(node, 65534, 65534)
os.chown(node / "meshwalk.sqlite3", 65534, 65534)
os.chdir(disk)
os.setuid(65534)
for folder in (Path("node"), Path("other")):
    name, text = refused(folder)
    assert name == "StoreError", (name, text)
print("held")
"""


def test_full_and_read_only_disks(tmp_path: Path) -> None:
    if not can_mount():
        pytest.skip("no private mounts here")
    assert run(MOUNTED, tmp_path, wrapper=("unshare", "-m")) == "held"
