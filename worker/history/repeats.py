"""Which messages were seen before, over any distance."""

import sqlite3
from types import TracebackType
from typing import Self


class SeenIds:
    """A set of sources and ids on disk; ten million of them would take a gigabyte of memory.

    The database has no name: SQLite keeps a few megabytes in memory and removes the rest by itself.
    """

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute(
            "CREATE TABLE seen (source TEXT, id TEXT, PRIMARY KEY (source, id)) WITHOUT ROWID"
        )
        self._database.execute("BEGIN")

    def is_new(self, source: str, message_id: str) -> bool:
        """Whether the pair was not asked for before."""
        added = self._database.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (source, message_id))
        return added.rowcount == 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._database.close()
