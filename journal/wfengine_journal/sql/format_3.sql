-- What format 3 adds to format 2: messages, deadlines, forks, and what a person asked to run again. Never edited once released.

ALTER TABLE flow_run ADD COLUMN deadline_at TEXT;     -- when the run fails (TimedOut) if it has not ended; counts over restarts; null: none
ALTER TABLE flow_run ADD COLUMN origin TEXT CHECK (origin IN ('fork', 'continued', 'import'));  -- what made it of another run; null: none
ALTER TABLE flow_run ADD COLUMN origin_run_id INTEGER; -- that run, by its id in the file where it was; null: none
ALTER TABLE flow_run ADD COLUMN wake_at TEXT;         -- of a suspended run: when its timer ends; null: it waits for a person or a message
CREATE INDEX flow_run_wake ON flow_run (wake_at) WHERE wake_at IS NOT NULL;
CREATE UNIQUE INDEX flow_run_continued ON flow_run (origin_run_id) WHERE origin = 'continued';  -- a run goes on in one other
ALTER TABLE execution ADD COLUMN rerun TEXT;          -- what a person asked to run again, in words: 'failed' 'changed' 'chosen'; null: no more than usual

CREATE TABLE task_code (                      -- with which code of its own a task ran in one execution of a flow run
    flow_run_id INTEGER NOT NULL,
    task_id     INTEGER NOT NULL REFERENCES task (id),
    epoch       INTEGER NOT NULL,
    code_hash   TEXT NOT NULL,
    PRIMARY KEY (flow_run_id, task_id, epoch)
) STRICT, WITHOUT ROWID;

CREATE TABLE message (                        -- sent to a flow run; each is received by one call, or by none
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    flow_run_id     INTEGER NOT NULL REFERENCES flow_run (id),  -- to whom
    topic           TEXT NOT NULL,
    value           ANY,                      -- null with a hash: in table value
    codec           TEXT NOT NULL,
    hash            BLOB NOT NULL,
    preview         TEXT,                     -- null when the codec is 'json' and the value stands here
    idempotency_key TEXT,                     -- a second message to the run with this topic and key is not sent; null: none
    sender_run_id   INTEGER,                  -- flow run that sent it; null: sent from outside of any
    sent_at         TEXT NOT NULL,
    received_by     INTEGER,                  -- task run that received it; null: nobody yet
    received_at     TEXT
) STRICT;
CREATE UNIQUE INDEX message_key ON message (flow_run_id, topic, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX message_open ON message (flow_run_id, topic, id) WHERE received_by IS NULL;

-- What refers to a row that pruning deletes has to be found without looking at every row.
CREATE INDEX task_run_error ON task_run (error_id) WHERE error_id IS NOT NULL;
CREATE INDEX flow_run_error ON flow_run (error_id) WHERE error_id IS NOT NULL;
CREATE INDEX dependency_needs ON dependency (needs_run_id);
CREATE INDEX message_run ON message (flow_run_id);
