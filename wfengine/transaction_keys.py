"""Transactions with a key: what was committed under it before, the value it leaves, and who may be in such a block.

What a block found when it began is recorded, so that a resumed run takes the same path though the key is committed by now.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wfengine.journals import default_journal
from wfengine.steps import Await, Create, Steps, Write
from wfengine_journal.cache import PutEntry, find_entry
from wfengine_journal.codec import encode
from wfengine_journal.errors import UsageError
from wfengine_journal.items import RecordItem
from wfengine_journal.slots import ClaimSlot, Look, ReleaseSlot, look

if TYPE_CHECKING:
    from wfengine.scopes import LiveRun
    from wfengine.transactions import Transaction
    from wfengine_journal.store import Journal


def begin_steps(txn: Transaction) -> Steps[None]:
    """Look what is committed under the key; with isolation SERIALIZABLE, wait until nobody else is in such a block."""
    if txn.key is None:
        return
    run, scope = txn.run, txn.scope
    if run is None or scope is None:
        _begin_outside(txn)
        return
    number = scope.next_occurrence(0, txn.key.encode("utf-8", "surrogatepass"))  # no task has the id 0
    txn.item = f"transaction {number} {txn.key}"
    recorded = run.journal.records.find_item(run.id, scope.task_run_id, txn.item) if run.recorded is not None else None
    if txn.isolation_level == "SERIALIZABLE" and not (recorded is not None and _answer(recorded[0])[0]):
        yield from _acquire(txn, run)
    if recorded is None:
        found = (False, None) if txn.overwrite else _committed(run.journal, txn.key)
        encoded = encode(list(found), f"what is committed under the key {txn.key!r}")
        yield Write(run, _item(txn, run, txn.item, encoded), run.synced)
    else:
        found = _answer(recorded[0])
    if found[0]:
        txn.mark_committed()
        txn.committed_value = found[1]
        yield from release_steps(txn)


def _begin_outside(txn: Transaction) -> None:
    if txn.isolation_level == "SERIALIZABLE":
        raise UsageError(
            f"The transaction with the key {txn.key!r} is SERIALIZABLE and stands outside of any flow run, so there is nobody "
            "to hold its lock. Put it into a function decorated with @flow."
        )
    committed, value = (False, None) if txn.overwrite or txn.key is None else _committed(default_journal(), txn.key)
    if committed:
        txn.mark_committed()
        txn.committed_value = value


def _committed(journal: Journal, key: str) -> tuple[bool, object]:
    entry = find_entry(journal.records, key)
    if entry is None or entry.is_expired(journal.clock.now_text()):
        return False, None
    what = f"the value committed under the key {key!r}"
    return True, journal.records.load_result(entry.result, entry.result_codec, entry.result_hash, what)


def _answer(recorded: object) -> tuple[bool, object]:
    assert isinstance(recorded, list)
    return bool(recorded[0]), recorded[1]


def _item(txn: Transaction, run: LiveRun, name: str, encoded: object) -> RecordItem:
    assert txn.scope is not None
    at = run.journal.clock.now_text()
    return RecordItem(run.id, txn.scope.task_run_id, name, encoded, epoch=run.epoch, at=at)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------- the end


def write_steps(txn: Transaction) -> Steps[None]:
    """Write the staged values of a transaction that commits, and of those inside it, and free their keys."""
    for entry in txn.entries:
        if not entry.is_committed():
            yield from write_steps(entry)
    if txn.key is None:
        return
    run = txn.run
    if txn.write_on_commit and run is None:
        journal = default_journal()
        encoded = encode(txn.staged_value, f"the value staged under the key {txn.key!r}")
        journal.write(PutEntry(txn.key, encoded, flow_run_id=0, at=journal.clock.now_text(), expires_at=None), synced=True)
    elif txn.write_on_commit and run is not None and txn.scope is not None:
        name = f"{txn.item} committed"
        if run.recorded is None or run.journal.records.find_item(run.id, txn.scope.task_run_id, name) is None:
            encoded = encode(txn.staged_value, f"the value staged under the key {txn.key!r}")
            at = run.journal.clock.now_text()
            yield Write(run, PutEntry(txn.key, encoded, flow_run_id=run.id, at=at, expires_at=None), run.synced)
            yield Write(run, _item(txn, run, name, encode(True, name)), False)
    yield from release_steps(txn)


def release_steps(txn: Transaction) -> Steps[None]:
    """Let others into a block with the key."""
    run = txn.run
    if run is None or txn.key is None or txn.scope is None or run.held_keys.get(txn.key) is not txn:
        return
    del run.held_keys[txn.key]
    task_run_id = txn.scope.task_run_id
    release = ReleaseSlot(_slot(txn.key), owner_id=run.journal.owner_id, flow_run_id=run.id, task_run_id=task_run_id)
    yield Write(run, release, False)


# ------------------------------------------------------------------------------------------- the lock


def _slot(key: str) -> str:
    return f"transaction:{key}"


def _acquire(txn: Transaction, run: LiveRun) -> Steps[None]:
    """Wait until the key is free, over all processes, and take it."""
    assert txn.key is not None
    assert txn.scope is not None
    key, task_run_id = txn.key, txn.scope.task_run_id
    if _is_held_around(txn):
        return

    def free() -> Look | None:
        if key in run.held_keys:
            return None
        found = look(run.journal, _slot(key))
        return found if all((one.flow_run_id, one.task_run_id) == (run.id, task_run_id) for one in found.holders) else None

    while True:
        found = yield Await(run, free)
        assert isinstance(found, Look)
        claim = ClaimSlot(
            _slot(key), 1, owner_id=run.journal.owner_id, flow_run_id=run.id, task_run_id=task_run_id,
            at=run.journal.clock.now_text(), dead_owners=found.dead_owners,
        )  # fmt: skip
        if key not in run.held_keys and (yield Create(run.journal, claim, False)):
            run.held_keys[key] = txn
            return


def _is_held_around(txn: Transaction) -> bool:
    """Tell whether a transaction around this one holds the key already."""
    around = txn.parent
    while around is not None:
        if around.run is not None and txn.key is not None and around.run.held_keys.get(txn.key) is around:
            return True
        around = around.parent
    return False
