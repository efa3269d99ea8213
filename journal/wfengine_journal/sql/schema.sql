-- The tables of a wfengine journal, format 1. FORMAT.md explains them; people and programs read the views.
-- Times are ISO-8601 UTC text of fixed width (2026-11-22T15:30:50.123456Z), so they sort as text.
-- A value is a codec name and its bytes: codec 'json' is JSON text, every other codec is a BLOB.
-- A hash is the xxh3_128 of codec and bytes (16 bytes), checked whenever the value is loaded.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,  -- 'journal_id', 'created_at', 'created_by'; 'pruning' exists while rows are being pruned
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE owner (                          -- a process that executes runs
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    pid             INTEGER NOT NULL,
    host            TEXT NOT NULL,
    boot_id         TEXT,                     -- identifies this boot of the machine; null where the system does not tell
    process_started TEXT,                     -- start time of the process in the system's own unit; null where not told
    role            TEXT NOT NULL,            -- what the process is: the command line, shortened
    started_at      TEXT NOT NULL,
    ended_at        TEXT                      -- null: alive, or died without saying so
) STRICT;
CREATE INDEX owner_open ON owner (id) WHERE ended_at IS NULL;

CREATE TABLE flow (
    id            INTEGER PRIMARY KEY,
    name          TEXT NOT NULL UNIQUE,
    description   TEXT,
    first_seen_at TEXT NOT NULL
) STRICT;

CREATE TABLE task (                           -- what is called: a task, or a flow when called inside a run
    id            INTEGER PRIMARY KEY,
    kind          TEXT NOT NULL CHECK (kind IN ('task', 'flow')),
    key           TEXT NOT NULL,              -- the task key: 'qualified.name' or 'qualified.name:given name', unless the author gave one
    name          TEXT NOT NULL,
    first_seen_at TEXT NOT NULL,
    UNIQUE (kind, key)
) STRICT;

CREATE TABLE code (                           -- one version of a flow's code, as far as it reaches in the user's modules
    id     INTEGER PRIMARY KEY,
    hash   TEXT NOT NULL UNIQUE,              -- of the syntax tree: comments, line numbers and layout do not count
    source TEXT                               -- for people; null when the source could not be read
) STRICT;

CREATE TABLE flow_run (
    id                 INTEGER PRIMARY KEY AUTOINCREMENT,
    name               TEXT NOT NULL,         -- for people to type: 'quiet-heron', or what flow_run_name made
    flow_id            INTEGER NOT NULL REFERENCES flow (id),
    parent_task_run_id INTEGER REFERENCES task_run (id),  -- the call that started this subflow; null for a run of its own
    state              TEXT NOT NULL CHECK (state IN ('SCHEDULED', 'PENDING', 'RUNNING', 'PAUSED', 'CANCELLING',
                                                      'COMPLETED', 'FAILED', 'CANCELLED', 'CRASHED')),
    state_name         TEXT,                  -- null: the state's own name ('Running')
    state_message      TEXT,
    version            INTEGER NOT NULL,      -- number of transitions so far; the last one's seq
    epoch              INTEGER NOT NULL,      -- fencing token and attempt number: one more each time the body is started
    owner_id           INTEGER REFERENCES owner (id),     -- who executes it, or did last
    failures           INTEGER NOT NULL DEFAULT 0,        -- failed attempts that count against `retries`
    durability         TEXT NOT NULL CHECK (durability IN ('power', 'process')),
    parameters         TEXT NOT NULL,         -- JSON object by name; what is not JSON stands as preview text, see argument
    tags               TEXT,                  -- JSON array of text; null: none
    idempotency_key    TEXT,
    entrypoint         TEXT,                  -- 'file:/path/to/script.py:name' or 'module:package.module:name'; null: not importable
    flow_hash          BLOB,                  -- value that holds the flow's function, when it cannot be imported
    result             ANY,                   -- null with a result_hash: in table value
    result_codec       TEXT,
    result_hash        BLOB,                  -- null: no result
    result_preview     TEXT,                  -- null when the codec is 'json' and the result stands here
    error_id           INTEGER REFERENCES error (id),     -- of the last failure; null: none
    tasks_done         INTEGER,               -- counts at the end of the last attempt; null while it runs
    tasks_total        INTEGER,
    next_attempt_at    TEXT,                  -- set while waiting for a retry
    created_at         TEXT NOT NULL,
    started_at         TEXT,                  -- of the first attempt
    ended_at           TEXT,                  -- set exactly in terminal states
    CHECK ((state IN ('COMPLETED', 'FAILED', 'CANCELLED', 'CRASHED')) = (ended_at IS NOT NULL))
) STRICT;
CREATE UNIQUE INDEX flow_run_parent ON flow_run (parent_task_run_id) WHERE parent_task_run_id IS NOT NULL;
CREATE UNIQUE INDEX flow_run_idempotency ON flow_run (flow_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX flow_run_name ON flow_run (name);
CREATE INDEX flow_run_open ON flow_run (state, flow_id) WHERE state NOT IN ('COMPLETED', 'FAILED', 'CANCELLED');

CREATE TABLE execution (                      -- one start of a flow run's body: who ran it, with which code
    flow_run_id INTEGER NOT NULL REFERENCES flow_run (id),
    epoch       INTEGER NOT NULL,
    owner_id    INTEGER NOT NULL REFERENCES owner (id),
    code_id     INTEGER REFERENCES code (id), -- null: the code could not be read
    reason      TEXT NOT NULL CHECK (reason IN ('start', 'resume', 'recovery', 'retry')),
    started_at  TEXT NOT NULL,
    PRIMARY KEY (flow_run_id, epoch)
) STRICT, WITHOUT ROWID;

CREATE TABLE task_run (                       -- one call of a task, by its identity; also one call of a subflow
    id             INTEGER PRIMARY KEY,
    flow_run_id    INTEGER NOT NULL REFERENCES flow_run (id),
    scope          INTEGER NOT NULL,          -- id of the task run that made the call; 0: the flow's body
    task_id        INTEGER NOT NULL REFERENCES task (id),
    call_key       BLOB NOT NULL,             -- xxh3_128 of the canonical inputs, or of the call_key the author gave
    occurrence     INTEGER NOT NULL,          -- 0, 1, 2 ... among equal calls, in order of issue
    key_version    INTEGER NOT NULL DEFAULT 1,-- version of the canonical form
    lane           INTEGER NOT NULL,          -- 0: issued by the body's own thread of control; 1: anywhere else
    name           TEXT,                      -- null: task name and id
    -- No IN list here: SQLite builds a table of its members each time a row is written, a tenth of the cost of a task.
    state          TEXT NOT NULL CHECK (state = 'RUNNING' OR state = 'COMPLETED' OR state = 'PENDING' OR state = 'SCHEDULED'
                                        OR state = 'FAILED' OR state = 'PAUSED' OR state = 'CANCELLING'
                                        OR state = 'CANCELLED' OR state = 'CRASHED'),
    state_name     TEXT,
    state_message  TEXT,
    version        INTEGER NOT NULL,
    epoch          INTEGER NOT NULL,          -- of the flow run when the last attempt began: who may write its outcome
    attempt        INTEGER NOT NULL,          -- number of the last attempt; 0: none yet
    failures       INTEGER NOT NULL DEFAULT 0,-- failed attempts that count against `retries`
    interruptions  INTEGER NOT NULL DEFAULT 0,-- attempts cut off by a crash
    inputs         TEXT NOT NULL,             -- JSON object by parameter name; what is not JSON stands as preview text
    tags           TEXT,                      -- JSON array of text; null: none
    result         ANY,
    result_codec   TEXT,
    result_hash    BLOB,
    result_preview TEXT,
    error_id       INTEGER REFERENCES error (id),
    fatal          INTEGER,                   -- 1: this failure ended its flow run; resume runs it again
    orphaned_in    INTEGER,                   -- epoch that ended without asking for this completed call; null: not an orphan
    next_attempt_at TEXT,
    started_at     TEXT,                      -- of the first attempt
    ended_at       TEXT,
    UNIQUE (flow_run_id, scope, task_id, call_key, occurrence)
) STRICT;
CREATE INDEX task_run_failed ON task_run (id) WHERE state = 'FAILED';

CREATE TABLE transition (                     -- the state history: append-only
    flow_run_id INTEGER NOT NULL,
    task_run_id INTEGER NOT NULL,             -- 0: of the flow run itself
    seq         INTEGER NOT NULL,             -- 1, 2, 3 ... for one run
    state       TEXT NOT NULL,
    state_name  TEXT,
    message     TEXT,
    epoch       INTEGER NOT NULL,
    attempt     INTEGER NOT NULL,
    error_id    INTEGER,
    result_hash BLOB,                         -- only of an outcome that was superseded later; the value is in table value
    at          TEXT NOT NULL,
    PRIMARY KEY (flow_run_id, task_run_id, seq)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER transition_keeps BEFORE UPDATE ON transition
BEGIN SELECT raise(ABORT, 'the state history is append-only'); END;
CREATE TRIGGER transition_stays BEFORE DELETE ON transition
WHEN NOT EXISTS (SELECT 1 FROM meta WHERE key = 'pruning')
BEGIN SELECT raise(ABORT, 'the state history is append-only'); END;

CREATE TABLE argument (                       -- arguments and parameters that do not stand in full in inputs or parameters
    flow_run_id INTEGER NOT NULL,
    task_run_id INTEGER NOT NULL,             -- 0: a parameter of the flow run itself
    name        TEXT NOT NULL,
    hash        BLOB,                         -- of the value; null: it could not be stored
    python_type TEXT NOT NULL,
    PRIMARY KEY (flow_run_id, task_run_id, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE value (                          -- larger values, each content once
    hash        BLOB PRIMARY KEY,
    codec       TEXT NOT NULL,
    data        ANY NOT NULL,
    size        INTEGER NOT NULL,             -- bytes of data
    python_type TEXT NOT NULL,
    preview     TEXT NOT NULL,
    created_at  TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE error (
    id         INTEGER PRIMARY KEY,
    type       TEXT NOT NULL,                 -- qualified name of the exception's class
    message    TEXT NOT NULL,
    traceback  TEXT NOT NULL,
    data       BLOB,                          -- the exception itself; null when it could not be stored
    codec      TEXT,
    hash       BLOB
) STRICT;

CREATE TABLE log (
    id          INTEGER PRIMARY KEY,
    flow_run_id INTEGER NOT NULL,
    task_run_id INTEGER,                      -- null: logged by the flow's body
    at          TEXT NOT NULL,
    level       INTEGER NOT NULL,             -- as in Python's logging: 20 info, 30 warning, 40 error
    logger      TEXT NOT NULL,
    message     TEXT NOT NULL
) STRICT;
CREATE INDEX log_run ON log (flow_run_id, id);
