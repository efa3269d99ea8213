-- The public, versioned reading interface of a journal. Portable to SQLite 3.40.1. FORMAT.md lists every column.

CREATE VIEW runs AS
SELECT r.id, r.name, f.name AS flow,
       r.state,
       coalesce(r.state_name, substr(r.state, 1, 1) || lower(substr(r.state, 2))) AS state_name,
       r.parameters,
       CASE WHEN r.result_hash IS NULL THEN NULL
            WHEN r.result_codec = 'json' AND r.result IS NOT NULL THEN r.result
            ELSE r.result_preview END AS result,
       CASE WHEN r.state IN ('FAILED', 'CRASHED', 'PAUSED', 'SCHEDULED')
            THEN coalesce(e.type || CASE WHEN e.message = '' THEN '' ELSE ': ' || e.message END, r.state_message)
            END AS error,
       r.epoch AS attempt,
       coalesce(r.tasks_done, (SELECT count(*) FROM task_run t JOIN task k ON k.id = t.task_id
                               WHERE t.flow_run_id = r.id AND k.kind = 'task' AND t.state = 'COMPLETED')) AS tasks_done,
       coalesce(r.tasks_total, (SELECT count(*) FROM task_run t JOIN task k ON k.id = t.task_id
                                WHERE t.flow_run_id = r.id AND k.kind = 'task')) AS tasks_total,
       r.created_at, r.started_at, r.ended_at,
       round(strftime('%s', r.ended_at) - strftime('%s', r.started_at) + (substr(r.ended_at, 21, 6) - substr(r.started_at, 21, 6)) / 1e6, 6) AS duration_s,
       r.state_message AS message, r.tags, r.idempotency_key, r.durability,
       CASE WHEN r.state IN ('SCHEDULED', 'CRASHED') THEN r.next_attempt_at END AS next_attempt_at,
       (SELECT p.flow_run_id FROM task_run p WHERE p.id = r.parent_task_run_id) AS parent_run_id,
       r.parent_task_run_id, r.entrypoint, o.pid, o.host, r.deadline_at, r.wake_at, r.origin, r.origin_run_id,
       (SELECT f.name || '/' || d.name FROM deployment d WHERE d.id = r.deployment_id) AS deployment,
       r.queue, r.priority, r.partition_key, r.deduplication_key, r.nominal_at, r.due_at, r.crashes
FROM flow_run r
JOIN flow f ON f.id = r.flow_id
LEFT JOIN error e ON e.id = r.error_id
LEFT JOIN owner o ON o.id = r.owner_id;

CREATE VIEW tasks AS
SELECT t.id, t.flow_run_id AS run_id, r.name AS run_name, f.name AS flow, k.name AS task,
       coalesce(t.name, k.name || '-' || t.id) AS name,
       t.state,
       coalesce(t.state_name, substr(t.state, 1, 1) || lower(substr(t.state, 2))) AS state_name,
       t.attempt AS attempts, t.inputs,
       CASE WHEN t.result_hash IS NULL THEN NULL
            WHEN t.result_codec = 'json' AND t.result IS NOT NULL THEN t.result
            ELSE t.result_preview END AS result,
       CASE WHEN t.error_id IS NOT NULL
            THEN e.type || CASE WHEN e.message = '' THEN '' ELSE ': ' || e.message END END AS error,
       t.started_at, t.ended_at,
       round(strftime('%s', t.ended_at) - strftime('%s', t.started_at) + (substr(t.ended_at, 21, 6) - substr(t.started_at, 21, 6)) / 1e6, 6) AS duration_s,
       CAST(t.epoch < r.epoch AND t.state IN ('COMPLETED', 'FAILED') AND t.orphaned_in IS NULL AS INTEGER) AS replayed,
       t.epoch AS run_attempt, t.interruptions, t.state_message AS message, t.tags, t.next_attempt_at,
       nullif(t.scope, 0) AS parent_task_id, k.key AS task_key, lower(hex(t.call_key)) AS call_key, t.occurrence,
       CAST(t.orphaned_in IS NOT NULL AS INTEGER) AS orphan
FROM task_run t
JOIN task k ON k.id = t.task_id
JOIN flow_run r ON r.id = t.flow_run_id
JOIN flow f ON f.id = r.flow_id
LEFT JOIN error e ON e.id = t.error_id
WHERE k.kind = 'task';

CREATE VIEW attempts AS
SELECT b.flow_run_id AS run_id, b.task_run_id AS task_id, k.name AS task, b.attempt, b.at AS started_at, o.at AS ended_at,
       CASE WHEN o.state IS NULL THEN 'RUNNING'
            WHEN o.state_name = 'AwaitingRetry' THEN 'FAILED'
            WHEN o.state_name = 'Interrupted' THEN 'INTERRUPTED'
            ELSE o.state END AS outcome,
       e.type || CASE WHEN e.message = '' THEN '' ELSE ': ' || e.message END AS error,
       round(strftime('%s', o.at) - strftime('%s', b.at) + (substr(o.at, 21, 6) - substr(b.at, 21, 6)) / 1e6, 6) AS duration_s
FROM transition b
JOIN task_run t ON t.id = b.task_run_id
JOIN task k ON k.id = t.task_id
LEFT JOIN transition o ON o.flow_run_id = b.flow_run_id AND o.task_run_id = b.task_run_id AND o.seq = b.seq + 1
LEFT JOIN error e ON e.id = o.error_id
WHERE b.task_run_id <> 0 AND b.state = 'RUNNING';

CREATE VIEW failures AS
SELECT t.flow_run_id AS run_id, r.name AS run_name, f.name AS flow, k.name AS task, t.id AS task_id, t.ended_at AS at,
       e.type, e.message, CAST(coalesce(t.fatal, 0) AS INTEGER) AS ended_the_run, t.attempt AS attempts, t.inputs, e.traceback
FROM task_run t
JOIN task k ON k.id = t.task_id
JOIN flow_run r ON r.id = t.flow_run_id
JOIN flow f ON f.id = r.flow_id
LEFT JOIN error e ON e.id = t.error_id
WHERE t.state = 'FAILED'
UNION ALL
SELECT r.id, r.name, f.name, NULL, NULL, r.ended_at, coalesce(e.type, r.state), coalesce(e.message, r.state_message), 1,
       r.epoch, r.parameters, e.traceback
FROM flow_run r
JOIN flow f ON f.id = r.flow_id
LEFT JOIN error e ON e.id = r.error_id
WHERE r.state = 'FAILED'
UNION ALL  -- not together with the runs that failed: another index holds these
SELECT r.id, r.name, f.name, NULL, NULL, r.ended_at, coalesce(e.type, r.state), coalesce(e.message, r.state_message), 1,
       r.epoch, r.parameters, e.traceback
FROM flow_run r
JOIN flow f ON f.id = r.flow_id
LEFT JOIN error e ON e.id = r.error_id
WHERE r.state = 'CRASHED' AND r.state NOT IN ('COMPLETED', 'FAILED', 'CANCELLED');

CREATE VIEW timeline AS
SELECT t.flow_run_id AS run_id, k.name AS task, t.id AS task_id, t.state,
       round(strftime('%s', t.started_at) - strftime('%s', r.started_at) + (substr(t.started_at, 21, 6) - substr(r.started_at, 21, 6)) / 1e6, 6) AS offset_s,
       round(strftime('%s', t.ended_at) - strftime('%s', t.started_at) + (substr(t.ended_at, 21, 6) - substr(t.started_at, 21, 6)) / 1e6, 6) AS duration_s,
       t.started_at, t.ended_at
FROM task_run t
JOIN task k ON k.id = t.task_id
JOIN flow_run r ON r.id = t.flow_run_id
WHERE t.started_at IS NOT NULL
ORDER BY t.flow_run_id, t.started_at;

CREATE VIEW history AS
SELECT h.flow_run_id AS run_id, nullif(h.task_run_id, 0) AS task_id, k.name AS task, h.seq, h.at, h.state,
       coalesce(h.state_name, substr(h.state, 1, 1) || lower(substr(h.state, 2))) AS state_name,
       h.attempt, h.message, e.type || CASE WHEN e.message = '' THEN '' ELSE ': ' || e.message END AS error
FROM transition h
LEFT JOIN task_run t ON t.id = h.task_run_id
LEFT JOIN task k ON k.id = t.task_id
LEFT JOIN error e ON e.id = h.error_id
ORDER BY h.flow_run_id, h.at, h.task_run_id, h.seq;

CREATE VIEW stuck AS
SELECT r.id, r.name, f.name AS flow, r.state, r.state_message AS message, r.next_attempt_at, o.pid, o.host,
       (SELECT max(h.at) FROM transition h WHERE h.flow_run_id = r.id) AS last_activity_at,
       'wfengine resume ' || r.id AS next_step
FROM flow_run r INDEXED BY flow_run_open  -- in whatever order it is asked for: the few open runs, not all there ever were
JOIN flow f ON f.id = r.flow_id
LEFT JOIN owner o ON o.id = r.owner_id
WHERE r.state NOT IN ('COMPLETED', 'FAILED', 'CANCELLED')
  AND NOT (r.state = 'PAUSED' AND r.wake_at IS NOT NULL AND r.wake_at > strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
  AND (r.state IN ('CRASHED', 'PAUSED')
       OR ((SELECT max(h.at) FROM transition h WHERE h.flow_run_id = r.id)
           < strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-10 minutes')
           AND NOT EXISTS (SELECT 1 FROM task_run t WHERE t.flow_run_id = r.id AND t.state = 'SCHEDULED'
                           AND t.next_attempt_at > strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))));

CREATE VIEW in_doubt AS
SELECT t.flow_run_id AS run_id, r.name AS run_name, k.name AS task, t.id AS task_id, t.attempt, t.interruptions,
       t.started_at, t.ended_at AS interrupted_at, t.inputs
FROM flow_run r
CROSS JOIN task_run t ON t.flow_run_id = r.id  -- CROSS: the few open runs first, then their calls by the index
JOIN task k ON k.id = t.task_id
WHERE r.state NOT IN ('COMPLETED', 'FAILED', 'CANCELLED')
  AND k.key NOT GLOB 'wfengine.*'  -- calls of our own that wait, such as receive(): they go on waiting
  AND ((t.state = 'PAUSED' AND coalesce(t.state_name, '') NOT IN ('Paused', 'Suspended')) OR (t.state = 'CRASHED' AND t.state_name = 'Interrupted'));

CREATE VIEW orphans AS
SELECT t.flow_run_id AS run_id, r.name AS run_name, k.name AS task, t.id AS task_id, t.orphaned_in AS run_attempt, t.inputs,
       CASE WHEN t.result_codec = 'json' AND t.result IS NOT NULL THEN t.result ELSE t.result_preview END AS result,
       t.started_at, t.ended_at
FROM task_run t
JOIN task k ON k.id = t.task_id
JOIN flow_run r ON r.id = t.flow_run_id
WHERE t.orphaned_in IS NOT NULL;

CREATE VIEW logs AS
SELECT l.id, l.flow_run_id AS run_id, r.name AS run_name, l.task_run_id AS task_id, k.name AS task, l.at,
       CASE WHEN l.level >= 50 THEN 'CRITICAL' WHEN l.level >= 40 THEN 'ERROR' WHEN l.level >= 30 THEN 'WARNING'
            WHEN l.level >= 20 THEN 'INFO' ELSE 'DEBUG' END AS level,
       l.logger, l.message
FROM log l
JOIN flow_run r ON r.id = l.flow_run_id
LEFT JOIN task_run t ON t.id = l.task_run_id
LEFT JOIN task k ON k.id = t.task_id;

CREATE VIEW messages AS
SELECT m.id, m.flow_run_id AS run_id, r.name AS run_name, m.topic,
       CASE WHEN m.codec = 'json' AND m.value IS NOT NULL THEN m.value ELSE m.preview END AS value,
       m.idempotency_key, m.sender_run_id, m.sent_at, m.received_by AS received_by_task_id, m.received_at
FROM message m
JOIN flow_run r ON r.id = m.flow_run_id;

CREATE VIEW variables AS
SELECT name, value, tags, created_at, updated_at
FROM variable;

CREATE VIEW secrets AS
SELECT name, version, key_id, source, created_at, updated_at
FROM secret;

CREATE VIEW artifacts AS
SELECT a.id, a.key, a.type, a.data, a.description, a.flow_run_id AS run_id, r.name AS run_name,
       nullif(a.task_run_id, 0) AS task_id, k.name AS task, a.created_at, a.updated_at
FROM artifact a
LEFT JOIN flow_run r ON r.id = a.flow_run_id
LEFT JOIN task_run t ON t.id = a.task_run_id
LEFT JOIN task k ON k.id = t.task_id;

CREATE VIEW flow_stats AS
SELECT f.name AS flow, count(r.id) AS runs,
       count(CASE WHEN r.state = 'COMPLETED' THEN 1 END) AS completed,
       count(CASE WHEN r.state = 'FAILED' THEN 1 END) AS failed,
       count(CASE WHEN r.state = 'CRASHED' THEN 1 END) AS crashed,
       round(avg(CASE WHEN r.state = 'COMPLETED' THEN strftime('%s', r.ended_at) - strftime('%s', r.started_at) + (substr(r.ended_at, 21, 6) - substr(r.started_at, 21, 6)) / 1e6 END), 3)
           AS mean_duration_s,
       max(r.created_at) AS last_run_at
FROM flow f
LEFT JOIN flow_run r ON r.flow_id = f.id
GROUP BY f.id;

CREATE VIEW slowest_tasks AS
SELECT k.name AS task, count(*) AS task_runs,
       round(avg(strftime('%s', t.ended_at) - strftime('%s', t.started_at) + (substr(t.ended_at, 21, 6) - substr(t.started_at, 21, 6)) / 1e6), 6) AS mean_s,
       round(max(strftime('%s', t.ended_at) - strftime('%s', t.started_at) + (substr(t.ended_at, 21, 6) - substr(t.started_at, 21, 6)) / 1e6), 6) AS max_s,
       round(sum(strftime('%s', t.ended_at) - strftime('%s', t.started_at) + (substr(t.ended_at, 21, 6) - substr(t.started_at, 21, 6)) / 1e6), 3) AS total_s
FROM task_run t
JOIN task k ON k.id = t.task_id
WHERE t.state = 'COMPLETED' AND k.kind = 'task'
GROUP BY k.id
ORDER BY total_s DESC;

CREATE VIEW disk_usage AS
SELECT 'flow runs' AS what, count(*) AS rows,
       coalesce(sum(length(parameters) + coalesce(length(result), 0)), 0) AS bytes FROM flow_run
UNION ALL SELECT 'task runs', count(*), coalesce(sum(length(inputs) + coalesce(length(result), 0)), 0) FROM task_run
UNION ALL SELECT 'values', count(*), coalesce(sum(size), 0) FROM value
UNION ALL SELECT 'transitions', count(*), coalesce(sum(length(at) + coalesce(length(message), 0)), 0) FROM transition
UNION ALL SELECT 'errors', count(*), coalesce(sum(length(traceback) + coalesce(length(data), 0)), 0) FROM error
UNION ALL SELECT 'logs', count(*), coalesce(sum(length(message)), 0) FROM log
UNION ALL SELECT 'cache entries', count(*), coalesce(sum(length(key) + coalesce(length(result), 0)), 0) FROM cache
UNION ALL SELECT 'artifacts', count(*), coalesce(sum(length(data)), 0) FROM artifact
UNION ALL SELECT 'variables', count(*), coalesce(sum(length(value)), 0) FROM variable
UNION ALL SELECT 'streamed items', count(*), coalesce(sum(length(value)), 0) FROM item
UNION ALL SELECT 'messages', count(*), coalesce(sum(length(value)), 0) FROM message
UNION ALL SELECT 'events', count(*), coalesce(sum(length(resource) + coalesce(length(labels), 0) + coalesce(length(related), 0)
                                                  + coalesce(length(payload), 0)), 0) FROM event
UNION ALL SELECT 'ticks', count(*), coalesce(sum(length(coalesce(reason, ''))), 0) FROM tick;

CREATE VIEW cache_uses AS
SELECT u.flow_run_id AS run_id, u.task_run_id AS task_id, k.name AS task, u.outcome, u.key, u.parts, u.message,
       u.source_run AS source_task_id, (SELECT s.flow_run_id FROM task_run s WHERE s.id = u.source_run) AS source_run_id, u.at
FROM cache_use u
JOIN task_run t ON t.id = u.task_run_id
JOIN task k ON k.id = t.task_id;

CREATE VIEW cache_entries AS
SELECT c.key, k.name AS task, c.flow_run_id AS run_id, nullif(c.task_run_id, 0) AS task_id,
       CASE WHEN c.result_codec = 'json' AND c.result IS NOT NULL THEN c.result ELSE c.result_preview END AS result,
       c.created_at, c.expires_at
FROM cache c
LEFT JOIN task_run t ON t.id = c.task_run_id
LEFT JOIN task k ON k.id = t.task_id;

CREATE VIEW deployments AS
SELECT d.id, d.name, f.name AS flow, f.name || '/' || d.name AS full_name, d.tags,
       (SELECT group_concat(words, '; ') FROM (
            SELECT CASE s.kind WHEN 'cron' THEN 'cron ' || s.rule || CASE s.day_or WHEN 1 THEN '' ELSE ' (day and weekday)' END
                               WHEN 'rrule' THEN 'rule ' || s.rule
                               WHEN 'once' THEN 'once at ' || s.rule
                               ELSE 'every ' || CASE WHEN s.rule % 86400 = 0 AND s.rule NOT LIKE '%.%' THEN (s.rule / 86400) || ' d'
                                                     WHEN s.rule % 3600 = 0 AND s.rule NOT LIKE '%.%' THEN (s.rule / 3600) || ' h'
                                                     WHEN s.rule % 60 = 0 AND s.rule NOT LIKE '%.%' THEN (s.rule / 60) || ' min'
                                                     ELSE s.rule || ' s' END
                   END || CASE WHEN s.timezone = 'UTC' AND s.kind IN ('interval', 'once') THEN '' ELSE ', ' || s.timezone END
                   || CASE s.active WHEN 1 THEN '' ELSE ', off' END AS words
            FROM schedule s WHERE s.deployment_id = d.id AND s.removed_at IS NULL ORDER BY s.id)) AS schedule,
       CAST(d.paused = 0 AND EXISTS (SELECT 1 FROM schedule s WHERE s.deployment_id = d.id AND s.active = 1
                                     AND s.removed_at IS NULL) AS INTEGER) AS active,
       d.parameters, d.version, d.description, d.entrypoint, d.created_at, d.updated_at,
       d.paused, d.queue, d.priority, d.concurrency_limit, d.collision, d.isolate, d.max_recoveries,
       (SELECT min(s.due_at) FROM schedule s WHERE s.deployment_id = d.id AND s.next_at IS NOT NULL AND s.removed_at IS NULL AND s.active = 1
        AND d.paused = 0) AS next_at, d.applied_from
FROM deployment d
JOIN flow f ON f.id = d.flow_id
WHERE d.removed_at IS NULL;

CREATE VIEW schedules AS
SELECT s.id, f.name || '/' || d.name AS deployment, s.kind, s.rule, s.timezone, s.slug,
       CAST(s.active = 1 AND d.paused = 0 AS INTEGER) AS active, s.next_at, s.due_at,
       (SELECT t.nominal_at FROM tick t WHERE t.schedule_id = s.id ORDER BY t.nominal_at DESC LIMIT 1) AS last_at,
       (SELECT t.outcome FROM tick t WHERE t.schedule_id = s.id ORDER BY t.nominal_at DESC LIMIT 1) AS last_outcome,
       s.catch_up, s.overlap, s.misfire_grace_seconds, s.jitter_seconds, s.starts_at, s.ends_at, s.parameters, s.day_or, s.anchor_at
FROM schedule s
JOIN deployment d ON d.id = s.deployment_id
JOIN flow f ON f.id = d.flow_id
WHERE s.removed_at IS NULL AND d.removed_at IS NULL;

CREATE VIEW ticks AS
SELECT t.schedule_id, f.name || '/' || d.name AS deployment, s.rule, t.nominal_at, t.outcome, t.reason, t.flow_run_id AS run_id,
       r.name AS run_name, r.state AS run_state, t.decided_at
FROM tick t
JOIN schedule s ON s.id = t.schedule_id
JOIN deployment d ON d.id = s.deployment_id
JOIN flow f ON f.id = d.flow_id
LEFT JOIN flow_run r ON r.id = t.flow_run_id;

CREATE VIEW missed AS
SELECT t.schedule_id, f.name || '/' || d.name AS deployment, s.rule, t.nominal_at, t.outcome, t.reason, t.decided_at
FROM tick t INDEXED BY tick_missed  -- in whatever order it is asked for
JOIN schedule s ON s.id = t.schedule_id
JOIN deployment d ON d.id = s.deployment_id
JOIN flow f ON f.id = d.flow_id
WHERE t.outcome <> 'started';

CREATE VIEW upcoming AS
SELECT s.due_at AS at, f.name || '/' || d.name AS deployment, 'schedule' AS what, s.id AS schedule_id, NULL AS run_id,
       s.next_at AS nominal_at, s.rule, s.timezone
FROM schedule s
JOIN deployment d ON d.id = s.deployment_id
JOIN flow f ON f.id = d.flow_id
WHERE s.next_at IS NOT NULL AND s.removed_at IS NULL AND s.active = 1 AND d.paused = 0 AND d.removed_at IS NULL
UNION ALL
SELECT coalesce(r.due_at, r.created_at), f.name || '/' || d.name, 'run', NULL, r.id, r.nominal_at, NULL, NULL
FROM flow_run r
JOIN deployment d ON d.id = r.deployment_id
JOIN flow f ON f.id = d.flow_id
WHERE r.state = 'SCHEDULED' AND r.queue IS NOT NULL
ORDER BY 1;

CREATE VIEW queues AS
SELECT n.name, coalesce(q.paused, 0) AS paused, q.slots, q.partition_slots, q.rate_count, q.rate_seconds,
       (SELECT count(*) FROM flow_run r WHERE r.queue = n.name AND r.state = 'SCHEDULED' AND r.queue IS NOT NULL) AS waiting,
       (SELECT count(*) FROM flow_run r WHERE r.state NOT IN ('COMPLETED', 'FAILED', 'CANCELLED')
        AND r.state IN ('RUNNING', 'CANCELLING') AND r.queue = n.name) AS running,
       q.description
FROM (SELECT substr(name, 7) AS name FROM quota WHERE name GLOB 'queue:*'
      UNION SELECT queue FROM deployment WHERE removed_at IS NULL
      UNION SELECT queue FROM flow_run WHERE state = 'SCHEDULED' AND queue IS NOT NULL) n
LEFT JOIN quota q ON q.name = 'queue:' || n.name;

CREATE VIEW limits AS
SELECT q.name, q.slots, q.rate_count, q.rate_seconds,
       (SELECT coalesce(sum(s.occupies), 0) FROM slot s JOIN owner o ON o.id = s.owner_id AND o.ended_at IS NULL
        LEFT JOIN flow_run r ON r.id = s.flow_run_id AND r.owner_id = s.owner_id AND r.state IN ('RUNNING', 'CANCELLING')
        LEFT JOIN task_run t ON t.id = s.task_run_id
        WHERE s.name = q.name AND (s.flow_run_id = 0 OR r.id IS NOT NULL) AND (s.task_run_id = 0 OR t.state = 'RUNNING')) AS taken,
       q.paused, q.description, q.created_at, q.updated_at
FROM quota q
WHERE q.name NOT GLOB 'queue:*';

CREATE VIEW events AS
SELECT id, name, resource, flow_run_id AS run_id, task_run_id AS task_id, payload, labels, related, idempotency_key, occurred_at
FROM event;

CREATE VIEW automations AS
SELECT a.id, a.name, a.description, a.active, a.definition, (SELECT count(*) FROM firing x WHERE x.automation_id = a.id) AS firings,
       (SELECT max(x.fired_at) FROM firing x WHERE x.automation_id = a.id) AS last_fired_at, a.due_at, a.seen_to,
       a.applied_from, a.created_at, a.updated_at
FROM automation a
WHERE a.removed_at IS NULL;

CREATE VIEW firings AS
SELECT x.id, a.name AS automation, x.state, x.actions_done, x.results, x.event_id, x.context, x.attempts, x.next_attempt_at,
       x.fired_at, x.ended_at
FROM firing x
JOIN automation a ON a.id = x.automation_id;

CREATE VIEW notifications AS
SELECT id, target, state, level, subject, body, attempts, reason, next_attempt_at, message_id, unsure, flow_run_id AS run_id,
       idempotency_key, created_at, begun_at, ended_at
FROM notification;

CREATE VIEW notification_targets AS
SELECT t.name, t.url, t.rate_count, t.rate_seconds, t.digest_seconds, t.allow_private, t.held_to,
       (SELECT count(*) FROM notification n WHERE n.target = t.name AND n.state = 'pending') AS pending, t.created_at, t.updated_at
FROM notification_target t;

CREATE VIEW daemons AS
SELECT d.owner_id, d.name, CASE WHEN o.ended_at IS NOT NULL THEN 'stopped' ELSE d.state END AS state, o.pid, o.host, o.started_at,
       d.beat_at, o.ended_at, d.report
FROM daemon d
JOIN owner o ON o.id = d.owner_id;

CREATE VIEW help AS
SELECT column1 AS name, column2 AS shows, column3 AS try FROM (VALUES
    ('runs', 'every flow run: state, parameters, result, tasks done', 'SELECT id, name, flow, state, tasks_done, tasks_total FROM runs ORDER BY id DESC LIMIT 20'),
    ('tasks', 'every task run: inputs, result, attempts, whether it was replayed', 'SELECT id, task, state, inputs, result FROM tasks WHERE run_id = 1'),
    ('attempts', 'every attempt of every task run with its outcome', 'SELECT * FROM attempts WHERE outcome <> ''COMPLETED'''),
    ('failures', 'what failed, with its error and traceback', 'SELECT run_name, task, type, message FROM failures'),
    ('timeline', 'when each task run started, in seconds from the start of its run', 'SELECT task, offset_s, duration_s FROM timeline WHERE run_id = 1'),
    ('history', 'every state transition, in order', 'SELECT at, task, state_name, message FROM history WHERE run_id = 1'),
    ('stuck', 'runs that wait for a person, and runs with no activity for 10 minutes', 'SELECT name, state, message, next_step FROM stuck'),
    ('in_doubt', 'calls that were started and have no known outcome', 'SELECT run_name, task, inputs FROM in_doubt'),
    ('orphans', 'completed calls that the resumed code never asked for', 'SELECT run_name, task, inputs, result FROM orphans'),
    ('logs', 'what flows and tasks logged', 'SELECT at, level, task, message FROM logs WHERE run_id = 1'),
    ('messages', 'what was sent to flow runs, and which call received it', 'SELECT run_name, topic, value, received_at FROM messages'),
    ('variables', 'named values that flows share', 'SELECT name, value FROM variables'),
    ('secrets', 'names of secrets, and which key they are encrypted with', 'SELECT name, version, updated_at FROM secrets'),
    ('artifacts', 'what flows and tasks made for people to look at', 'SELECT id, key, type, run_name, data FROM artifacts'),
    ('deployments', 'flows with settings of their own, and when they are due', 'SELECT full_name, schedule, active, tags FROM deployments'),
    ('schedules', 'when deployments are due, and what became of the last tick', 'SELECT deployment, rule, timezone, next_at, last_outcome FROM schedules'),
    ('ticks', 'every due instant and its outcome', 'SELECT deployment, nominal_at, outcome, reason, run_id FROM ticks ORDER BY nominal_at DESC LIMIT 20'),
    ('missed', 'due instants that started no run, and why', 'SELECT deployment, nominal_at, outcome, reason FROM missed'),
    ('upcoming', 'what is due next, and runs that wait in a queue', 'SELECT at, deployment, what FROM upcoming LIMIT 20'),
    ('queues', 'queues of runs: how many wait and run, and what they let in', 'SELECT name, waiting, running, slots FROM queues'),
    ('limits', 'how many may do something at a time, or in a time', 'SELECT name, slots, taken, rate_count, rate_seconds FROM limits'),
    ('events', 'what happened, state changes of flow runs included', 'SELECT id, name, resource, occurred_at FROM events ORDER BY id DESC LIMIT 20'),
    ('automations', 'what is done when events happen', 'SELECT name, active, firings, last_fired_at FROM automations'),
    ('firings', 'each time an automation fired, and what came of its actions', 'SELECT automation, state, results, fired_at FROM firings ORDER BY id DESC LIMIT 20'),
    ('notifications', 'what somebody is to be told, and whether it was sent', 'SELECT target, state, subject, attempts, reason FROM notifications ORDER BY id DESC LIMIT 20'),
    ('notification_targets', 'whom notifications go to', 'SELECT name, pending, rate_count, rate_seconds FROM notification_targets'),
    ('daemons', 'processes that serve this journal, and since when', 'SELECT name, state, pid, beat_at FROM daemons'),
    ('flow_stats', 'per flow: runs, failures, mean duration', 'SELECT * FROM flow_stats'),
    ('slowest_tasks', 'per task: number, mean, longest, total seconds', 'SELECT * FROM slowest_tasks LIMIT 10'),
    ('cache_uses', 'what each cached call asked of the cache, and the answer', 'SELECT task, outcome, key, message FROM cache_uses WHERE run_id = 1'),
    ('cache_entries', 'results that later calls may reuse', 'SELECT task, key, result, expires_at FROM cache_entries'),
    ('disk_usage', 'what takes the room, by kind: rows and bytes', 'SELECT * FROM disk_usage'),
    ('help', 'this list', 'SELECT name, shows FROM help'));
