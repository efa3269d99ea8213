-- What format 4 adds to format 3: schedules that fire, queues and limits, events, automations, notifications, daemons. Never edited once released.

CREATE TABLE schedule_4 (                     -- when a deployment is due
    id            INTEGER PRIMARY KEY,
    deployment_id INTEGER NOT NULL REFERENCES deployment (id),
    kind          TEXT NOT NULL CHECK (kind IN ('interval', 'cron', 'rrule', 'once')),
    rule          TEXT NOT NULL,              -- seconds as a decimal number, a cron expression, an RFC 5545 rule, or an ISO-8601 instant
    anchor_at     TEXT,                       -- interval: an instant that is due, from which it is counted; null: another kind
    timezone      TEXT NOT NULL,              -- IANA name
    day_or        INTEGER NOT NULL CHECK (day_or IN (0, 1)),  -- cron: 0: day of month and weekday, both restricted, must both match
    parameters    TEXT NOT NULL,              -- JSON object: they go before those of the deployment
    slug          TEXT NOT NULL,              -- a name of its own; '': none
    active        INTEGER NOT NULL CHECK (active IN (0, 1)),  -- 0: paused; its ticks are recorded as skipped
    jitter_seconds REAL NOT NULL DEFAULT 0,   -- a tick is acted on so much after its instant at the most; how much is fixed by the tick
    starts_at     TEXT,                       -- no tick before; null: any
    ends_at       TEXT,                       -- no tick after; null: any
    misfire_grace_seconds REAL NOT NULL DEFAULT 60,  -- a tick first seen later than that after its instant is late
    catch_up      TEXT NOT NULL DEFAULT 'last' CHECK (catch_up IN ('none', 'last', 'all')),  -- which of the late ticks run
    catch_up_limit INTEGER NOT NULL DEFAULT 100,  -- 'all': so many late ticks run at the most, the newest ones
    overlap       TEXT NOT NULL DEFAULT 'queue' CHECK (overlap IN ('skip', 'queue', 'cancel', 'allow')),  -- while a former run of it has not ended
    decided_to    TEXT,                       -- every instant up to this one, and no later one, has its tick; null: not looked at yet
    next_at       TEXT,                       -- the first instant after it; null: nothing more is due, or not looked at yet
    due_at        TEXT,                       -- when the scheduler looks at it: next_at and its jitter; of one that is new or changed, at once
    created_at    TEXT NOT NULL,
    removed_at    TEXT,                       -- when it was taken out of the deployment; null: it is there. Its ticks stay
    UNIQUE (deployment_id, kind, rule, timezone, day_or, parameters, slug)
) STRICT;
-- They start to count now: no format before this one fired any.
INSERT INTO schedule_4 (id, deployment_id, kind, rule, anchor_at, timezone, day_or, parameters, slug, active, created_at, decided_to, due_at)
SELECT s.id, s.deployment_id, s.kind, s.rule, s.anchor_at, s.timezone, s.day_or, s.parameters, s.slug, s.active, d.created_at,
       strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000Z', strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000Z'
FROM schedule s JOIN deployment d ON d.id = s.deployment_id;
DROP TABLE schedule;
ALTER TABLE schedule_4 RENAME TO schedule;
CREATE INDEX schedule_due ON schedule (due_at) WHERE due_at IS NOT NULL AND removed_at IS NULL;

CREATE TABLE tick (                           -- one due instant of a schedule, and what became of it: one outcome, whatever the clock does
    schedule_id INTEGER NOT NULL REFERENCES schedule (id),
    nominal_at  TEXT NOT NULL,                -- the instant by the rule
    outcome     TEXT NOT NULL CHECK (outcome IN ('started', 'skipped', 'coalesced', 'missed')),
    reason      TEXT,                         -- for people; null: it started in time
    flow_run_id INTEGER,                      -- the run that it started; null: none
    decided_at  TEXT NOT NULL,
    PRIMARY KEY (schedule_id, nominal_at)
) STRICT, WITHOUT ROWID;
CREATE INDEX tick_run ON tick (flow_run_id) WHERE flow_run_id IS NOT NULL;
CREATE INDEX tick_nominal ON tick (nominal_at);
CREATE INDEX tick_missed ON tick (schedule_id, nominal_at) WHERE outcome <> 'started';

ALTER TABLE deployment ADD COLUMN queue TEXT NOT NULL DEFAULT 'default';  -- where its runs wait to be taken up
ALTER TABLE deployment ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;    -- of its runs in the queue: larger ones first
ALTER TABLE deployment ADD COLUMN concurrency_limit INTEGER;              -- so many of its runs at a time; null: any number
ALTER TABLE deployment ADD COLUMN collision TEXT NOT NULL DEFAULT 'enqueue' CHECK (collision IN ('enqueue', 'cancel_new'));  -- of a run beyond the limit
ALTER TABLE deployment ADD COLUMN isolate INTEGER NOT NULL DEFAULT 0 CHECK (isolate IN (0, 1));  -- 1: each run in a process of its own
ALTER TABLE deployment ADD COLUMN memory_limit_bytes INTEGER;             -- of that process; null: none
ALTER TABLE deployment ADD COLUMN time_limit_seconds REAL;                -- of that process, which is killed then; null: none
ALTER TABLE deployment ADD COLUMN max_recoveries INTEGER NOT NULL DEFAULT 10;  -- how often a run that crashed is taken up by itself
ALTER TABLE deployment ADD COLUMN parameter_schema TEXT;                  -- JSON schema of the flow's parameters; null: not known
ALTER TABLE deployment ADD COLUMN source TEXT;                            -- JSON object: where the code is fetched from; null: it is where entrypoint says
ALTER TABLE deployment ADD COLUMN applied_from TEXT;                      -- the file that declares it; null: code did
ALTER TABLE deployment ADD COLUMN removed_at TEXT;                        -- when it was removed; null: it is there. Its runs and ticks stay

ALTER TABLE flow_run ADD COLUMN deployment_id INTEGER REFERENCES deployment (id);  -- what started it; null: no deployment
ALTER TABLE flow_run ADD COLUMN nominal_at TEXT;      -- the instant of a schedule for which it was started; null: no schedule did
ALTER TABLE flow_run ADD COLUMN due_at TEXT;          -- not taken up out of its queue before; null: at once
ALTER TABLE flow_run ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;  -- in its queue: larger ones first
ALTER TABLE flow_run ADD COLUMN partition_key TEXT;   -- runs of one key share the queue's limit for each partition; null: none
ALTER TABLE flow_run ADD COLUMN deduplication_key TEXT;  -- until it ends, its queue takes no second run of its flow with this key; null: none
ALTER TABLE flow_run ADD COLUMN crashes INTEGER NOT NULL DEFAULT 0;  -- how often its process died since a person last took it up; -1: it was imported, and nobody took it up here
CREATE INDEX flow_run_failed ON flow_run (id) WHERE state = 'FAILED';
CREATE INDEX task_run_orphan ON task_run (id) WHERE orphaned_in IS NOT NULL;
DROP INDEX flow_run_queue;
CREATE INDEX flow_run_queue ON flow_run (queue, priority DESC, id) WHERE state = 'SCHEDULED' AND queue IS NOT NULL;
CREATE INDEX flow_run_due ON flow_run (due_at) WHERE state = 'SCHEDULED' AND due_at IS NOT NULL;
CREATE INDEX flow_run_deduplication ON flow_run (deduplication_key)
    WHERE deduplication_key IS NOT NULL AND state NOT IN ('COMPLETED', 'FAILED', 'CANCELLED');
CREATE INDEX flow_run_deployment ON flow_run (deployment_id, id) WHERE deployment_id IS NOT NULL;
CREATE INDEX flow_run_ticking ON flow_run (deployment_id, nominal_at)
    WHERE nominal_at IS NOT NULL AND state NOT IN ('COMPLETED', 'FAILED', 'CANCELLED');

ALTER TABLE execution ADD COLUMN exit_code INTEGER;   -- of the process of its own that it had; negative: minus the signal that ended it; null: it had none, or has not ended
ALTER TABLE execution ADD COLUMN peak_memory_bytes INTEGER;  -- of that process
ALTER TABLE execution ADD COLUMN output TEXT;         -- the last of what that process printed

CREATE TABLE quota (                          -- how much of something may be done: 'queue:NAME' for runs of a queue, 'tag:NAME' for tasks with a tag, else a name of the user's
    name          TEXT PRIMARY KEY,
    slots         INTEGER,                    -- so many holders at a time; null: any number
    partition_slots INTEGER,                  -- queues: so many runs of one partition key at a time; null: any number
    rate_count    INTEGER,                    -- so many starts in rate_seconds; null: any number
    rate_seconds  REAL,
    rate_level    REAL NOT NULL DEFAULT 0,    -- starts that count against rate_count at rate_at; they wear off evenly
    rate_at       TEXT,                       -- null: nothing has started yet
    paused        INTEGER NOT NULL DEFAULT 0 CHECK (paused IN (0, 1)),  -- 1: nothing is let in
    description   TEXT,
    applied_from  TEXT,                       -- the file that declares it; null: code or a command said so last
    created_at    TEXT NOT NULL,
    updated_at    TEXT NOT NULL
) STRICT, WITHOUT ROWID;
ALTER TABLE slot ADD COLUMN occupies INTEGER NOT NULL DEFAULT 1;  -- places that the holder takes; 0: it waits in line for some

CREATE TABLE event (                          -- something that happened; each state change of a flow run is one
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    name            TEXT NOT NULL,            -- 'wfengine.flow-run.Completed', 'order.placed' ...
    resource        TEXT NOT NULL,            -- of what: 'wfengine.flow-run.12', 'file./data/in/a.csv' ...
    flow_run_id     INTEGER,                  -- the run that it is of, or that emitted it; null: neither
    task_run_id     INTEGER,
    labels          TEXT,                     -- JSON object: more about the resource; null: nothing
    related         TEXT,                     -- JSON array of objects: other resources concerned; null: none
    payload         TEXT,                     -- JSON; null: none
    idempotency_key TEXT,                     -- a second event with this name and key is not recorded; null: none
    occurred_at     TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX event_key ON event (name, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX event_run ON event (flow_run_id) WHERE flow_run_id IS NOT NULL;

CREATE TABLE automation (                     -- what is done when certain events happen, or do not
    id          INTEGER PRIMARY KEY,
    name        TEXT NOT NULL UNIQUE,
    description TEXT,
    definition  TEXT NOT NULL,                -- JSON object: 'trigger' and 'actions'
    active      INTEGER NOT NULL CHECK (active IN (0, 1)),
    wants_tasks INTEGER NOT NULL CHECK (wants_tasks IN (0, 1)),  -- 1: state changes of task runs are events for it too
    seen_to     INTEGER NOT NULL,             -- id of the last event it has looked at
    state       TEXT NOT NULL,                -- JSON object: what it keeps in mind between events
    due_at      TEXT,                         -- when it has to look although nothing happened; null: never
    applied_from TEXT,                        -- the file that declares it; null: code or a command did
    created_at  TEXT NOT NULL,
    updated_at  TEXT NOT NULL,
    removed_at  TEXT                          -- null: it is there. Its firings stay
) STRICT;
CREATE INDEX automation_tasks ON automation (id) WHERE wants_tasks = 1 AND active = 1 AND removed_at IS NULL;

CREATE TABLE firing (                         -- an automation whose trigger was met, and what was done about it
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    automation_id INTEGER NOT NULL REFERENCES automation (id),
    event_id      INTEGER,                    -- the event that met it; null: an absence did, or it is pruned
    context       TEXT NOT NULL,              -- JSON object: what the actions are told
    state         TEXT NOT NULL CHECK (state IN ('pending', 'done', 'failed')),
    actions_done  INTEGER NOT NULL,           -- so many of its actions, in order, have an outcome
    results       TEXT NOT NULL,              -- JSON array: what came of each of them
    attempts      INTEGER NOT NULL DEFAULT 0, -- of the action that is next
    next_attempt_at TEXT,                     -- null: at once
    fired_at      TEXT NOT NULL,
    ended_at      TEXT
) STRICT;
CREATE INDEX firing_pending ON firing (id) WHERE state = 'pending';
CREATE INDEX firing_automation ON firing (automation_id, id);

CREATE TABLE daemon (                         -- a process that serves this journal, and how it does
    owner_id   INTEGER PRIMARY KEY REFERENCES owner (id),
    name       TEXT NOT NULL,                 -- what it serves, for people
    state      TEXT NOT NULL CHECK (state IN ('running', 'stopping', 'stopped')),
    beat_at    TEXT NOT NULL,                 -- when it last said so
    report     TEXT NOT NULL                  -- JSON object: what it does, and how it is
) STRICT;

CREATE TABLE secret (                         -- a named secret, encrypted, or where it is kept; the key stands elsewhere
    name       TEXT PRIMARY KEY,
    ciphertext BLOB,                          -- AES-256-GCM with the name as associated data: 12 bytes of nonce, then text and tag
    key_id     TEXT,                          -- which key: 16 hex digits of a hash of it
    source     TEXT,                          -- 'env:NAME', 'file:PATH', 'command:...' or 'keyring:SERVICE/NAME'
    version    INTEGER NOT NULL,              -- how often it was set
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,                 -- when it was set last
    CHECK ((ciphertext IS NULL) = (key_id IS NULL) AND (ciphertext IS NULL) <> (source IS NULL))
) STRICT, WITHOUT ROWID;

CREATE TABLE notification_target (            -- whom notifications go to
    name       TEXT PRIMARY KEY,
    url        TEXT NOT NULL,                 -- an apprise URL; what is secret in it stands as a reference, {{ secrets.NAME }}
    rate_count INTEGER,                       -- so many messages in rate_seconds; what is more waits, and goes out together; null: any number
    rate_seconds REAL,
    digest_seconds REAL NOT NULL DEFAULT 0,   -- what is asked for so long after the first goes out with it, as one message
    allow_private INTEGER NOT NULL CHECK (allow_private IN (0, 1)),  -- 1: it may be on this machine or in a private network
    held_to    TEXT,                          -- nothing is sent before, since it asked for that; null: at any time
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    CHECK ((rate_count IS NULL) = (rate_seconds IS NULL))
) STRICT, WITHOUT ROWID;

CREATE TABLE notification (                   -- the outbox: what somebody is to be told, and whether that was sent
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    target          TEXT NOT NULL,            -- name of the target; it may be gone
    idempotency_key TEXT,                     -- a second notification of this target and key is not recorded; null: none
    flow_run_id     INTEGER,                  -- the run that it is of; null: of none. The run may be pruned
    level           TEXT NOT NULL CHECK (level IN ('info', 'success', 'warning', 'failure')),
    subject         TEXT,
    body            TEXT NOT NULL,
    state           TEXT NOT NULL CHECK (state IN ('pending', 'sent', 'failed')),
    message_id      TEXT,                     -- of the message that carries it, alone or with others, in every try; null: not tried yet
    attempts        INTEGER NOT NULL DEFAULT 0,
    unsure          INTEGER NOT NULL DEFAULT 0 CHECK (unsure IN (0, 1)),  -- 1: a try that was cut off, or had no clear answer, may have arrived
    next_attempt_at TEXT,                     -- null: as soon as the target's rate and digest let it
    reason          TEXT,                     -- why the last try failed
    created_at      TEXT NOT NULL,
    begun_at        TEXT,                     -- when the first try began; null: not yet
    ended_at        TEXT,                     -- when it was sent, or given up; null: it is pending
    CHECK ((state = 'pending') = (ended_at IS NULL)),
    CHECK ((message_id IS NULL) = (begun_at IS NULL))
) STRICT;
CREATE UNIQUE INDEX notification_key ON notification (target, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX notification_pending ON notification (target, id) WHERE state = 'pending';
CREATE INDEX notification_failed ON notification (id) WHERE state = 'failed';
CREATE INDEX notification_begun ON notification (target, begun_at) WHERE begun_at IS NOT NULL;
CREATE INDEX notification_message ON notification (message_id) WHERE message_id IS NOT NULL;
