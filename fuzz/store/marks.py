# SPDX-License-Identifier: Apache-2.0
"""Store the marks that users set on findings: a status, an assignee, a note."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from fuzz.store.database import Database, Unreadable


@dataclass(frozen=True, slots=True)
class Mark:
    """The mark of one finding; ``changed`` is ISO 8601, UTC, empty if the mark was never set."""

    status: str = "new"
    assignee: str = ""
    note: str = ""
    changed: str = ""


class Marks:
    """All marks of a database.  StoreError: it cannot be written.  InputError: it cannot be read."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> dict[str, Mark]:
        """Return the marks by the finding's id; rows that cannot be read are left out."""
        return self.readable()[0]

    def readable(self) -> tuple[dict[str, Mark], tuple[Unreadable, ...]]:
        """Return the marks by the finding's id, and the rows that cannot be read."""
        with self._database.access() as access:
            sql = "SELECT id, status, assignee, note, changed FROM marks ORDER BY id"
            rows, others = access.readable_rows("marks", sql)
        marks = {row["id"]: Mark(row["status"], row["assignee"], row["note"], row["changed"]) for row in rows}
        return marks, tuple(others)

    def set(self, id_: str, now: str, **changes: str | None) -> Mark:
        """Change the fields of a finding's mark that are not None at ``now`` (ISO 8601); return the whole mark."""
        mark = replace(
            self.all().get(id_, Mark()),
            changed=now,
            **{name: text for name, text in changes.items() if text is not None},
        )
        with self._database.access(write=True, durable=True) as access:
            access.run(
                "INSERT INTO marks (id, status, assignee, note, changed) "
                "VALUES (:id, :status, :assignee, :note, :changed) ON CONFLICT (id) DO UPDATE SET "
                "status = excluded.status, assignee = excluded.assignee, note = excluded.note, "
                "changed = excluded.changed",
                id=id_,
                **asdict(mark),
            )
        return mark
