-- What the manager needs: tokens, a record of every change, and the jobs of a state without a look at those of others.

-- part: tables
CREATE TABLE workerd.token (
    id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    name text NOT NULL CHECK (name <> '' AND length(name) <= 100),
    hash bytea NOT NULL CHECK (length(hash) = 32),  -- SHA-256 of the token, which is random enough to need no salt
    scopes text[] NOT NULL CHECK (scopes <> '{}' AND scopes <@ '{read,operate,work}'),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    used_at timestamptz,
    revoked_at timestamptz
);
CREATE UNIQUE INDEX token_name ON workerd.token (name) WHERE revoked_at IS NULL;
CREATE TABLE workerd.audit (
    id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    who text NOT NULL,       -- the name of a token
    action text NOT NULL,
    target text,
    detail jsonb
);

-- part: what sensitive tasks carry is not for everybody who reads
ALTER TABLE workerd.task ADD COLUMN sensitive boolean NOT NULL DEFAULT false;

-- part: views
CREATE VIEW workerd.job_running AS
SELECT r.id, r.task, l.queue, 'running'::text AS state, l.priority::int AS priority, r.attempt + 1 AS attempt,
    coalesce(r.max_retries, t.max_retries)::int AS max_retries, p.fraction AS progress, p.message, r.key, r.enqueued_at, r.queued_at AS run_at,
    e.claimed_at AS started_at, NULL::timestamptz AS finished_at, n.name AS node, NULL::text AS error
FROM workerd.lease e CROSS JOIN LATERAL workerd.positions(e.tickets) AS held(pos)
JOIN workerd.ready r ON r.lane = e.lane AND r.pos = held.pos
JOIN workerd.lane l ON l.id = r.lane LEFT JOIN workerd.task t ON t.name = r.task
LEFT JOIN workerd.node n ON n.id = e.node LEFT JOIN workerd.progress p ON p.id = r.id;
CREATE VIEW workerd.job_queued AS
SELECT r.id, r.task, l.queue, 'queued'::text AS state, l.priority::int AS priority, r.attempt,
    coalesce(r.max_retries, t.max_retries)::int AS max_retries, NULL::real AS progress, NULL::text AS message, r.key, r.enqueued_at,
    r.queued_at AS run_at, NULL::timestamptz AS started_at, NULL::timestamptz AS finished_at, NULL::text AS node,
    r.attempts -> -1 ->> 'error' AS error
FROM workerd.ready r JOIN workerd.lane l ON l.id = r.lane LEFT JOIN workerd.task t ON t.name = r.task
WHERE NOT EXISTS (SELECT FROM workerd.lease e WHERE e.lane = r.lane AND e.last >= r.pos AND e.tickets @> r.pos);
CREATE VIEW workerd.job_waiting AS
SELECT s.id, s.task, l.queue, CASE s.waits WHEN 'jobs' THEN 'blocked' WHEN 'limit' THEN 'queued' ELSE 'scheduled' END AS state,
    l.priority::int AS priority, s.attempt, coalesce(s.max_retries, t.max_retries)::int AS max_retries, NULL::real AS progress,
    NULL::text AS message, s.key, s.enqueued_at, s.run_at, NULL::timestamptz AS started_at, NULL::timestamptz AS finished_at,
    NULL::text AS node, s.attempts -> -1 ->> 'error' AS error
FROM workerd.scheduled s JOIN workerd.lane l ON l.id = s.lane LEFT JOIN workerd.task t ON t.name = s.task;
CREATE VIEW workerd.job_ended AS
SELECT h.id, h.task, l.queue, h.state, l.priority::int AS priority, h.attempt, coalesce(h.max_retries, t.max_retries)::int AS max_retries,
    h.progress, NULL::text AS message, h.key, h.enqueued_at, h.queued_at AS run_at, h.started_at, h.finished_at, n.name AS node, h.error
FROM workerd.history h JOIN workerd.lane l ON l.id = h.lane LEFT JOIN workerd.task t ON t.name = h.task
LEFT JOIN workerd.node n ON n.id = h.node;

-- part: index of what did not succeed
CREATE INDEX history_unsuccessful ON ONLY workerd.history (state, id) WHERE state <> 'succeeded';
CREATE PROCEDURE workerd.index_history() LANGUAGE plpgsql AS $$
DECLARE
    day text;
BEGIN
    FOR day IN SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'workerd.history'::regclass ORDER BY 1
    LOOP  -- each in a transaction of its own; only the newest day is written to
        EXECUTE format('CREATE INDEX IF NOT EXISTS %I ON workerd.%I (state, id) WHERE state <> ''succeeded''', day || '_unsuccessful', day);
        EXECUTE format('ALTER INDEX workerd.history_unsuccessful ATTACH PARTITION workerd.%I', day || '_unsuccessful');
        COMMIT;
    END LOOP;
END $$;

-- part outside of a transaction: index of each day
CALL workerd.index_history();
DROP PROCEDURE workerd.index_history();
