-- What was, for charts; what nodes tell of themselves; for how long changes are on record.

-- part: samples
-- Kept by the leader: of each second for ten minutes, each minute for a day, each hour for 90 days.
CREATE TABLE workerd.sample (
    span int NOT NULL CHECK (span IN (1, 60, 3600)),  -- seconds, about
    at timestamptz NOT NULL,
    covers double precision NOT NULL CHECK (covers > 0),  -- seconds in which jobs were counted
    succeeded bigint NOT NULL,
    failed bigint NOT NULL,
    cancelled bigint NOT NULL,
    retried bigint NOT NULL,
    queued bigint,                      -- the most there were; NULL: there were too many to be counted in time
    running bigint,
    scheduled bigint,
    oldest double precision,            -- seconds for which the first in line had been queued, the longest; NULL: none waited
    run bigint[] NOT NULL,              -- histograms as in tally: they add up to longer spans
    wait bigint[] NOT NULL,
    run_p50 double precision,           -- milliseconds; NULL: nothing ended
    run_p95 double precision,
    wait_p95 double precision,
    PRIMARY KEY (span, at)
);

-- part: nodes
ALTER TABLE workerd.node ADD COLUMN rss bigint;              -- bytes of the daemon; NULL: it does not tell
ALTER TABLE workerd.node ADD COLUMN lag double precision;    -- seconds that its loop took to come to what is new

-- part: running jobs
-- Each found by its ticket (OFFSET 0 keeps the lookup apart): a plan by the id would read all that is ready to find none that runs.
CREATE OR REPLACE VIEW workerd.job_running AS
SELECT r.id, r.task, l.queue, 'running'::text AS state, l.priority::int AS priority, r.attempt + 1 AS attempt,
    coalesce(r.max_retries, t.max_retries)::int AS max_retries, p.fraction AS progress, p.message, r.key, r.enqueued_at, r.queued_at AS run_at,
    e.claimed_at AS started_at, NULL::timestamptz AS finished_at, n.name AS node, NULL::text AS error
FROM workerd.lease e CROSS JOIN LATERAL workerd.positions(e.tickets) AS held(pos)
CROSS JOIN LATERAL (SELECT * FROM workerd.ready found WHERE found.lane = e.lane AND found.pos = held.pos OFFSET 0) AS r
JOIN workerd.lane l ON l.id = r.lane LEFT JOIN workerd.task t ON t.name = r.task
LEFT JOIN workerd.node n ON n.id = e.node LEFT JOIN workerd.progress p ON p.id = r.id;

-- part: record of changes
-- Whoever prunes may forget what is old of it, and nothing else. Returns how many; the oldest are looked at alone.
CREATE FUNCTION workerd.forget_changes() RETURNS bigint LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH gone AS (
        DELETE FROM workerd.audit a USING (SELECT id, at FROM workerd.audit ORDER BY id LIMIT 10000) oldest
        WHERE a.id = oldest.id AND oldest.at < now() - interval '90 days' RETURNING 1)
    SELECT count(*) FROM gone
$$;
REVOKE EXECUTE ON FUNCTION workerd.forget_changes FROM PUBLIC;
