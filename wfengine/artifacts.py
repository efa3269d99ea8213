"""Artifacts: texts, tables, links, pictures and progress that a run makes for people to look at.

    create_markdown_artifact("## Done", key="report")

An artifact belongs to the call that makes it, by its place in the order of artifacts of that call. A body that is executed
again on resume finds those it made and makes none twice; a retried attempt overwrites those of the failed one. Made in
several threads or asyncio tasks of one body, artifacts have no defined order: none is doubled, but two may change places.
Artifacts with one key are versions of one thing. In async code the functions are awaited, as in Prefect.

While a file is loaded to find its flows, what it makes at module level is not made (its id is 0), as flows called there do
nothing.
"""

from __future__ import annotations

import json
import logging
import math
import re
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, cast

from wfengine.awaiting import always_awaited, awaited_in_async_code
from wfengine.journals import default_durability, default_journal
from wfengine.loading import leaves_no_trace
from wfengine.plain_json import plain_json
from wfengine.runners.away import asks_the_flow
from wfengine.scopes import LiveRun, current_scope, find_scope
from wfengine.steps import Steps, Write, drive
from wfengine_journal.artifacts import ArtifactRow, Maker, PutArtifact, UpdateArtifact, find_artifact, get_artifact
from wfengine_journal.clock import SystemClock
from wfengine_journal.errors import InternalError, InvalidValueError, NotFoundError
from wfengine_journal.store import Journal
from wfengine_journal.transitions import shown_text

_logger = logging.getLogger("wfengine.artifacts")

Table = dict[str, list[object]] | list[dict[str, object]] | list[list[object]]

TYPES = ("markdown", "table", "link", "image", "progress")
#: Characters of what one artifact shows: it is for people, and no store for data.
DATA_LIMIT = 10_000_000
KEY_LIMIT = 255
_KEY = re.compile(r"[a-z0-9-]+")
#: Counts the artifacts of a scope, in its table of calls: no task has the id 0.
_COUNTER = (0, b"artifact")


@dataclass(frozen=True, slots=True)
class StoredArtifact:
    """An artifact as it is recorded. `data` is what Prefect gives: of a table its JSON text, of a link markdown."""

    id: int
    key: str | None
    type: str
    description: str | None
    data: object
    flow_run_id: int | None
    task_run_id: int | None
    created: datetime
    updated: datetime


@dataclass(kw_only=True)
class Artifact:
    """An artifact to be made; use its subclasses. `Artifact.get(key)` returns the one of that key that was changed last."""

    default_type: ClassVar[str] = ""

    key: str | None = None
    description: str | None = None
    data: object = None
    type: str = ""

    def __post_init__(self) -> None:
        self.type = self.type or self.default_type
        if self.type not in TYPES:
            raise InvalidValueError(f"{self.type!r} is no type of artifact. There are: {', '.join(TYPES)}.")
        if self.key is not None and (not _KEY.fullmatch(str(self.key)) or len(self.key) > KEY_LIMIT):
            raise InvalidValueError(
                f"{self.key!r} cannot be the key of an artifact: a key has lowercase letters, digits and dashes, and at most "
                f"{KEY_LIMIT} of them."
            )

    def stored(self) -> str:
        """Return what stands in the journal: markdown, or JSON of the other types. Raises InvalidValueError."""
        if self.type == "markdown":
            return shown_text(str(self.data))
        return plain_json(self.data, f"the {self.type} artifact", is_table=self.type == "table", secrets="hide")

    @awaited_in_async_code
    def create(self) -> StoredArtifact:
        """Write it, committed at once, and return it with its id."""
        return _create(self)

    async def acreate(self) -> StoredArtifact:
        """Do what `create` does; its answer is awaited in any code."""
        return _create(self)

    @classmethod
    @awaited_in_async_code
    def get(cls, key: str | None = None) -> StoredArtifact | None:
        """Return the artifact with that key that was changed last, or None; of any key when none is given."""
        return _get(key)

    @classmethod
    async def aget(cls, key: str | None = None) -> StoredArtifact | None:
        """Do what `get` does; its answer is awaited in any code."""
        return _get(key)

    @classmethod
    @awaited_in_async_code
    def get_or_create(
        cls, key: str | None = None, description: str | None = None, data: object = None, **content: object
    ) -> tuple[StoredArtifact, bool]:
        """Return the artifact that `get` finds and False, or a new one and True; `content` is that of the subclass."""
        return cls._get_or_create(key, description, data, content)

    @classmethod
    async def aget_or_create(
        cls, key: str | None = None, description: str | None = None, data: object = None, **content: object
    ) -> tuple[StoredArtifact, bool]:
        """Do what `get_or_create` does; its answer is awaited in any code."""
        return cls._get_or_create(key, description, data, content)

    @classmethod
    def _get_or_create(
        cls, key: str | None, description: str | None, data: object, content: dict[str, object]
    ) -> tuple[StoredArtifact, bool]:
        found = _get(key)
        if found is not None:
            return found, False
        return _create(cls(key=key, description=description, data=data, **content)), True  # type: ignore[arg-type]  # refused by the class


@dataclass(kw_only=True)
class MarkdownArtifact(Artifact):
    """A text in markdown."""

    default_type: ClassVar[str] = "markdown"

    markdown: str

    def stored(self) -> str:
        """See Artifact."""
        return shown_text(self.markdown)


@dataclass(kw_only=True)
class TableArtifact(Artifact):
    """A table: a list of rows (dicts by column, or lists), or a dict of columns (lists). Not-a-numbers become null."""

    default_type: ClassVar[str] = "table"

    table: Table

    def stored(self) -> str:
        """See Artifact."""
        rows = self.table.values() if isinstance(self.table, dict) else self.table
        kind = list if isinstance(self.table, dict) else (dict, list)
        if not isinstance(self.table, dict | list) or not all(isinstance(row, kind) for row in rows):
            raise InvalidValueError(
                f"A table is a list of dicts, a list of lists or a dict of lists, not a {type(self.table).__qualname__} like "
                f"{str(self.table)[:60]!r}. Of a frame take: frame.to_dict('records')"
            )
        return plain_json(self.table, "the table", is_table=True, secrets="hide")


@dataclass(kw_only=True)
class LinkArtifact(Artifact):
    """A link, with the text to show for it."""

    default_type: ClassVar[str] = "link"

    link: str
    link_text: str | None = None

    def stored(self) -> str:
        """See Artifact."""
        return plain_json({"link": self.link, "text": self.link_text or self.link}, "the link artifact", secrets="hide")


@dataclass(kw_only=True)
class ImageArtifact(Artifact):
    """A picture that is found at a URL."""

    default_type: ClassVar[str] = "image"

    image_url: str

    def stored(self) -> str:
        """See Artifact."""
        return plain_json(self.image_url, "the URL of the image artifact", secrets="hide")


@dataclass(kw_only=True)
class ProgressArtifact(Artifact):
    """How far something is, in percent; what lies outside of 0 to 100 is taken for the nearer end, with a warning."""

    default_type: ClassVar[str] = "progress"

    progress: float

    def stored(self) -> str:
        """See Artifact."""
        if not isinstance(self.progress, int | float) or math.isnan(self.progress):
            raise InvalidValueError(f"A progress is a number from 0 to 100, not {self.progress!r}.")
        within = min(max(float(self.progress), 0.0), 100.0)
        if within != self.progress:
            _logger.warning("A progress of %s %% lies outside of 0 to 100; it is shown as %s %%.", self.progress, within)
        return plain_json(within, "the progress", secrets="hide")


# ---------------------------------------------------------------------------------------------------- functions


@awaited_in_async_code
def create_markdown_artifact(markdown: str, key: str | None = None, description: str | None = None) -> int:
    """Make a text in markdown, committed at once; return the artifact's id, an integer."""
    return _create(MarkdownArtifact(markdown=markdown, key=key, description=description)).id


@awaited_in_async_code
def create_table_artifact(table: Table, key: str | None = None, description: str | None = None) -> int:
    """Make a table of rows (dicts or lists) or of columns (a dict of lists), committed at once; return the artifact's id."""
    return _create(TableArtifact(table=table, key=key, description=description)).id


@awaited_in_async_code
def create_link_artifact(
    link: str, link_text: str | None = None, key: str | None = None, description: str | None = None
) -> int:
    """Make a link, committed at once; return the artifact's id, an integer."""
    return _create(LinkArtifact(link=link, link_text=link_text, key=key, description=description)).id


@awaited_in_async_code
def create_image_artifact(image_url: str, key: str | None = None, description: str | None = None) -> int:
    """Make a picture that is found at a URL, committed at once; return the artifact's id, an integer."""
    return _create(ImageArtifact(image_url=image_url, key=key, description=description)).id


@awaited_in_async_code
def create_progress_artifact(progress: float, key: str | None = None, description: str | None = None) -> int:
    """Make a progress of 0 to 100 percent, committed at once; return the artifact's id, for `update_progress_artifact`."""
    return _create(ProgressArtifact(progress=progress, key=key, description=description)).id


@asks_the_flow
@awaited_in_async_code
def update_progress_artifact(artifact_id: int, progress: float, description: str | None = None) -> int:
    """Change a progress, committed at once; return the artifact's id. NotFoundError if there is no such progress."""
    data = ProgressArtifact(progress=progress).stored()
    if current_scope() is None and leaves_no_trace():
        return artifact_id
    journal, run, _ = _place(counts=False)
    change = UpdateArtifact(artifact_id, "progress", data, description, at=journal.clock.now_text())
    _write(journal, run, change)
    if not change.existed:
        raise NotFoundError(
            f"There is no progress artifact {artifact_id}. See them with: wfengine artifacts ls --type progress"
        )
    return artifact_id


acreate_markdown_artifact = always_awaited(create_markdown_artifact)
acreate_table_artifact = always_awaited(create_table_artifact)
acreate_link_artifact = always_awaited(create_link_artifact)
acreate_image_artifact = always_awaited(create_image_artifact)
acreate_progress_artifact = always_awaited(create_progress_artifact)
aupdate_progress_artifact = always_awaited(update_progress_artifact)


# ---------------------------------------------------------------------------------------------------- the journal


@asks_the_flow
def _create(artifact: Artifact) -> StoredArtifact:
    data = artifact.stored()
    if len(data) > DATA_LIMIT:
        raise InvalidValueError(
            f"The {artifact.type} artifact has {len(data)} characters; the limit is {DATA_LIMIT}. Write the data into a file "
            "and make a link to it."
        )
    description = None if artifact.description is None else shown_text(artifact.description)
    if current_scope() is None and leaves_no_trace():
        at = SystemClock().now_text()
        return stored_artifact(ArtifactRow(0, artifact.key, artifact.type, data, description, None, None, None, None, at, at))
    journal, run, maker = _place(counts=True)
    change = PutArtifact(artifact.type, artifact.key, data, description, maker, at=journal.clock.now_text())
    _write(journal, run, change)
    row = journal.records.read(lambda connection: get_artifact(connection, change.id))
    if row is None:
        raise InternalError(f"Artifact {change.id} was written and is not there. Please report this.")
    return stored_artifact(row)


@asks_the_flow
def _get(key: str | None) -> StoredArtifact | None:
    journal, _, _ = _place(counts=False)
    row = journal.records.read(lambda connection: find_artifact(connection, key))
    return None if row is None else stored_artifact(row)


def _place(*, counts: bool) -> tuple[Journal, LiveRun | None, Maker | None]:
    """Return where the calling code's artifacts go, and, where one is made, who makes it."""
    scope = current_scope()
    if scope is None:
        return default_journal(), None, None
    if not scope.closed:
        find_scope()  # unwinds a run that was stopped and an attempt that was given up
    run = scope.run
    if not counts or not run.id:  # 0: what names a run is asked before there is one
        return run.journal, run if run.id else None, None
    # A hook may be called more than once, and not in the order of the body: what it makes is always new.
    ordinal = None if scope.closed else scope.next_occurrence(*_COUNTER)
    return run.journal, run, Maker(run.id, run.epoch, scope.task_run_id, ordinal)


def _write(journal: Journal, run: LiveRun | None, change: PutArtifact | UpdateArtifact) -> None:
    """Commit a change. In a run the outcome of the enclosing call waits for the disk, and takes this along."""
    if run is None:
        journal.write(change, synced=default_durability(journal) == "power")
    else:
        drive(_written(run, change))


def _written(run: LiveRun, change: PutArtifact | UpdateArtifact) -> Steps[None]:
    yield Write(run, change, False)


def stored_artifact(row: ArtifactRow) -> StoredArtifact:
    """Return an artifact as user code sees it."""
    return StoredArtifact(
        row.id, row.key, row.type, row.description, _shown(row), row.run_id, row.task_id,
        datetime.fromisoformat(row.created_at), datetime.fromisoformat(row.updated_at),
    )  # fmt: skip


def _shown(row: ArtifactRow) -> object:
    if row.type in ("markdown", "table"):
        return row.data
    found = json.loads(row.data)
    if row.type == "link":
        link = cast("dict[str, str]", found)
        return f"[{link['text']}]({link['link']})"
    return found
