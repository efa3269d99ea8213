-- What format 2 adds to format 1 (schema.sql): new files run both, older files this one. Never edited once released.

ALTER TABLE flow_run ADD COLUMN flow_version TEXT;  -- the `version` of the flow's decorator; null: none
ALTER TABLE flow_run ADD COLUMN queue TEXT;         -- who takes this run up, 'task:KEY' for background tasks; null: its starter, or a person
CREATE INDEX flow_run_owned ON flow_run (id) WHERE state = 'SCHEDULED' AND owner_id IS NOT NULL;
CREATE INDEX flow_run_queue ON flow_run (queue, id) WHERE state = 'SCHEDULED' AND queue IS NOT NULL;

CREATE TABLE dependency (                     -- what a queued run waits for: it is not taken up before those have ended
    flow_run_id   INTEGER NOT NULL REFERENCES flow_run (id),
    needs_run_id  INTEGER NOT NULL REFERENCES flow_run (id),
    must_complete INTEGER NOT NULL CHECK (must_complete IN (0, 1)),  -- 1: the queued run fails with it, if it fails
    PRIMARY KEY (flow_run_id, needs_run_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE item (                           -- what a call handed out or noted while it ran, before its result
    flow_run_id INTEGER NOT NULL,
    task_run_id INTEGER NOT NULL,             -- 0: the flow's body
    key         ANY NOT NULL,                 -- integer: the number of a streamed item, from 0; text: a name set in a transaction
    value       ANY,                          -- null with a hash: in table value
    codec       TEXT NOT NULL,
    hash        BLOB NOT NULL,
    preview     TEXT,                         -- null when the codec is 'json' and the value stands here
    at          TEXT NOT NULL,
    PRIMARY KEY (flow_run_id, task_run_id, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE hook_run (                       -- a user's hook that was called for a state, after the commit of that state
    flow_run_id INTEGER NOT NULL,
    task_run_id INTEGER NOT NULL,             -- 0: of the flow run itself
    seq         INTEGER NOT NULL,             -- of the transition it was called for
    hook        TEXT NOT NULL,                -- 'on_failure', 'on_crashed' ...
    name        TEXT NOT NULL,                -- of the function
    error       TEXT,                         -- what it raised; null: it returned
    at          TEXT NOT NULL,
    PRIMARY KEY (flow_run_id, task_run_id, seq, hook, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE cache (                          -- results that later calls may reuse, in any run; never consulted for replay
    key            TEXT PRIMARY KEY,
    result         ANY,                       -- null: in table value
    result_codec   TEXT NOT NULL,
    result_hash    BLOB NOT NULL,
    result_preview TEXT,
    flow_run_id    INTEGER NOT NULL,          -- who computed it
    task_run_id    INTEGER NOT NULL,          -- 0: a transaction of the flow's body
    created_at     TEXT NOT NULL,
    expires_at     TEXT                       -- null: never
) STRICT, WITHOUT ROWID;

CREATE TABLE cache_use (                      -- what one task run asked of the cache, and the answer
    flow_run_id  INTEGER NOT NULL,
    task_run_id  INTEGER NOT NULL,
    key          TEXT,                        -- null: no key could be computed
    outcome      TEXT NOT NULL,               -- 'hit', 'miss', 'expired', 'refreshed', 'damaged', 'no key'
    parts        TEXT NOT NULL,               -- JSON object: each part the key is made of, and its hash or text
    message      TEXT,                        -- why there is no key, or why the entry was not used
    source_run   INTEGER,                     -- hit: the task run that computed the result
    at           TEXT NOT NULL,
    PRIMARY KEY (flow_run_id, task_run_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE slot (                           -- a place that only so many may hold at a time; void once its owner is dead,
                                              -- does not execute the run any more, or the task run is not RUNNING
    id          INTEGER PRIMARY KEY,
    name        TEXT NOT NULL,                -- of what is limited: 'cache:KEY' for the lock on a cache key
    owner_id    INTEGER NOT NULL REFERENCES owner (id),
    flow_run_id INTEGER NOT NULL,
    task_run_id INTEGER NOT NULL,             -- 0: the flow's body
    taken_at    TEXT NOT NULL
) STRICT;
CREATE INDEX slot_name ON slot (name);

CREATE TABLE variable (                       -- a named JSON value that flows share
    name       TEXT PRIMARY KEY,
    value      TEXT NOT NULL,                 -- JSON
    tags       TEXT,                          -- JSON array of text; null: none
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE artifact (                       -- something made for people to look at: a table, a text, a link, a picture, a progress
    id          INTEGER PRIMARY KEY,
    key         TEXT,                         -- versions of one thing share it; null: stands alone
    type        TEXT NOT NULL CHECK (type IN ('markdown', 'table', 'link', 'image', 'progress')),
    data        TEXT NOT NULL,                -- markdown text, or JSON of the other types
    description TEXT,
    flow_run_id INTEGER,                      -- null: made outside of a run
    task_run_id INTEGER,                      -- 0: by the flow's body
    ordinal     INTEGER,                      -- 0, 1, 2 ... within that call: a replayed body makes none twice
    created_at  TEXT NOT NULL,
    updated_at  TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX artifact_maker ON artifact (flow_run_id, task_run_id, ordinal) WHERE flow_run_id IS NOT NULL;
CREATE INDEX artifact_key ON artifact (key, id) WHERE key IS NOT NULL;

CREATE TABLE deployment (                     -- a flow with settings of its own, known to the file by name
    id          INTEGER PRIMARY KEY,
    flow_id     INTEGER NOT NULL REFERENCES flow (id),
    name        TEXT NOT NULL,
    entrypoint  TEXT,                         -- as in flow_run; null: only code that has the flow can run it
    version     TEXT,
    description TEXT,
    parameters  TEXT NOT NULL,                -- JSON object: values for the flow's parameters
    tags        TEXT,                         -- JSON array of text; null: none
    paused      INTEGER NOT NULL DEFAULT 0 CHECK (paused IN (0, 1)),
    created_at  TEXT NOT NULL,
    updated_at  TEXT NOT NULL,
    UNIQUE (flow_id, name)
) STRICT;

CREATE TABLE schedule (                       -- when a deployment is due
    id            INTEGER PRIMARY KEY,
    deployment_id INTEGER NOT NULL REFERENCES deployment (id) ON DELETE CASCADE,
    kind          TEXT NOT NULL CHECK (kind IN ('interval', 'cron', 'rrule')),
    rule          TEXT NOT NULL,              -- seconds as a decimal number, a cron expression, or an RFC 5545 rule
    anchor_at     TEXT,                       -- interval: an instant that is due, from which it is counted; null: another kind
    timezone      TEXT NOT NULL,              -- IANA name
    day_or        INTEGER NOT NULL CHECK (day_or IN (0, 1)),  -- cron: 0: day of month and weekday, both restricted, must both match
    parameters    TEXT NOT NULL,              -- JSON object: they go before those of the deployment
    slug          TEXT NOT NULL,              -- a name of its own; '': none
    active        INTEGER NOT NULL CHECK (active IN (0, 1)),
    UNIQUE (deployment_id, kind, rule, timezone, day_or, parameters, slug)
) STRICT;
