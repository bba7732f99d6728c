CREATE OR REPLACE VIEW workerd.job AS
SELECT r.id, r.task, l.queue, CASE WHEN e.node IS NULL THEN 'queued' ELSE 'running' END AS state, l.priority::int AS priority, r.payload,
    NULL::jsonb AS result, NULL::text AS error, r.attempt + (e.node IS NOT NULL)::int AS attempt, r.failures,
    coalesce(r.max_retries, t.max_retries)::int AS max_retries, p.fraction AS progress, p.message, r.key, r.enqueued_at, r.queued_at AS run_at,
    e.claimed_at AS started_at, NULL::timestamptz AS finished_at, n.name AS node, r.attempts,
    r.attempts -> -1 ->> 'fingerprint' AS fingerprint, r.options, l.node AS pinned
FROM workerd.ready r JOIN workerd.lane l ON l.id = r.lane LEFT JOIN workerd.task t ON t.name = r.task
LEFT JOIN workerd.lease e ON e.lane = r.lane AND e.last >= r.pos AND e.tickets @> r.pos
LEFT JOIN workerd.node n ON n.id = e.node LEFT JOIN workerd.progress p ON p.id = r.id
UNION ALL
SELECT s.id, s.task, l.queue, CASE s.waits WHEN 'jobs' THEN 'blocked' WHEN 'limit' THEN 'queued' ELSE 'scheduled' END, l.priority, s.payload, NULL,
    s.attempts -> -1 ->> 'error', s.attempt, s.failures, coalesce(s.max_retries, t.max_retries),
    CASE WHEN s.options ? 'batch' THEN (SELECT (count(d.ended)::float8 / greatest(count(*), 1))::real FROM workerd.dependency d WHERE d.child = s.id) END,
    NULL, s.key, s.enqueued_at, s.run_at, NULL, NULL, NULL, s.attempts,
    s.attempts -> -1 ->> 'fingerprint', s.options, l.node
FROM workerd.scheduled s JOIN workerd.lane l ON l.id = s.lane LEFT JOIN workerd.task t ON t.name = s.task
UNION ALL
SELECT h.id, h.task, l.queue, h.state, l.priority, h.payload, h.result, h.error, h.attempt, h.failures,
    coalesce(h.max_retries, t.max_retries), h.progress, NULL, h.key, h.enqueued_at, h.queued_at, h.started_at, h.finished_at, n.name, h.attempts,
    CASE WHEN h.state = 'failed' THEN coalesce(h.fingerprint, 'other') END, h.options, l.node
FROM workerd.history h JOIN workerd.lane l ON l.id = h.lane LEFT JOIN workerd.task t ON t.name = h.task LEFT JOIN workerd.node n ON n.id = h.node;

CREATE OR REPLACE VIEW workerd.task_queue AS
SELECT id, task AS task_type, state AS status, priority, payload, result, error AS error_message, attempt, max_retries,
    enqueued_at AS created_at, started_at, finished_at AS completed_at, node AS worker
FROM workerd.job;

CREATE OR REPLACE VIEW workerd.limit_in_force AS
SELECT DISTINCT ON (scope, name) scope, name, origin, rate, concurrency FROM workerd.limits ORDER BY scope, name, origin DESC;

-- The jobs of a state, without a look at those of others. Each running job is found by its ticket (OFFSET 0 keeps the lookup apart): a plan by
-- the id would read all that is ready to find none that runs.
CREATE OR REPLACE VIEW workerd.job_running AS
SELECT r.id, r.task, l.queue, 'running'::text AS state, l.priority::int AS priority, r.attempt + 1 AS attempt,
    coalesce(r.max_retries, t.max_retries)::int AS max_retries, p.fraction AS progress, p.message, r.key, r.enqueued_at, r.queued_at AS run_at,
    e.claimed_at AS started_at, NULL::timestamptz AS finished_at, n.name AS node, NULL::text AS error
FROM workerd.lease e CROSS JOIN LATERAL workerd.positions(e.tickets) AS held(pos)
CROSS JOIN LATERAL (SELECT * FROM workerd.ready found WHERE found.lane = e.lane AND found.pos = held.pos OFFSET 0) AS r
JOIN workerd.lane l ON l.id = r.lane LEFT JOIN workerd.task t ON t.name = r.task
LEFT JOIN workerd.node n ON n.id = e.node LEFT JOIN workerd.progress p ON p.id = r.id;

CREATE OR REPLACE VIEW workerd.job_queued AS
SELECT r.id, r.task, l.queue, 'queued'::text AS state, l.priority::int AS priority, r.attempt,
    coalesce(r.max_retries, t.max_retries)::int AS max_retries, NULL::real AS progress, NULL::text AS message, r.key, r.enqueued_at,
    r.queued_at AS run_at, NULL::timestamptz AS started_at, NULL::timestamptz AS finished_at, NULL::text AS node,
    r.attempts -> -1 ->> 'error' AS error
FROM workerd.ready r JOIN workerd.lane l ON l.id = r.lane LEFT JOIN workerd.task t ON t.name = r.task
WHERE NOT EXISTS (SELECT FROM workerd.lease e WHERE e.lane = r.lane AND e.last >= r.pos AND e.tickets @> r.pos);

CREATE OR REPLACE VIEW workerd.job_waiting AS
SELECT s.id, s.task, l.queue, CASE s.waits WHEN 'jobs' THEN 'blocked' WHEN 'limit' THEN 'queued' ELSE 'scheduled' END AS state,
    l.priority::int AS priority, s.attempt, coalesce(s.max_retries, t.max_retries)::int AS max_retries, NULL::real AS progress,
    NULL::text AS message, s.key, s.enqueued_at, s.run_at, NULL::timestamptz AS started_at, NULL::timestamptz AS finished_at,
    NULL::text AS node, s.attempts -> -1 ->> 'error' AS error
FROM workerd.scheduled s JOIN workerd.lane l ON l.id = s.lane LEFT JOIN workerd.task t ON t.name = s.task;

CREATE OR REPLACE VIEW workerd.job_ended AS
SELECT h.id, h.task, l.queue, h.state, l.priority::int AS priority, h.attempt, coalesce(h.max_retries, t.max_retries)::int AS max_retries,
    h.progress, NULL::text AS message, h.key, h.enqueued_at, h.queued_at AS run_at, h.started_at, h.finished_at, n.name AS node, h.error
FROM workerd.history h JOIN workerd.lane l ON l.id = h.lane LEFT JOIN workerd.task t ON t.name = h.task
LEFT JOIN workerd.node n ON n.id = h.node;

COMMENT ON VIEW workerd.job IS
    'Every job, wherever it is, in the words of this documentation. The running attempt counts as begun; the fingerprint is that of the '
    'failure that came last.';
COMMENT ON VIEW workerd.task_queue IS 'Every job, in columns named as in many other queues.';
COMMENT ON VIEW workerd.limit_in_force IS 'The limits that hold: an operator''s before a declared one.';
