-- A job is in exactly one of ready (queued or running), scheduled and history. It runs while its ticket `pos` is in a lease of its lane.
-- Only rescue and give_back update a ready row, and only its counters.
--
-- Locks, always in this order within one transaction: lease row, ready rows, lane (advisory, until the commit). Whoever holds the lock of a
-- lane never waits for a lease row. One lane a transaction.
--
-- Times are compared by no check: a clock may be set back.

CREATE SEQUENCE workerd.job_id;
CREATE SEQUENCE workerd.ticket CACHE 1;  -- drawn at insert: a cached block would let later commits draw earlier tickets for minutes

CREATE TABLE workerd.queue (
    name text PRIMARY KEY CHECK (name <> '' AND length(name) <= 200),
    paused_at timestamptz,
    ageing double precision CHECK (ageing > 0)           -- seconds for which a job waits until its priority rises by one
);

-- One queue at one priority. Claims of a lane are serialised by an advisory lock on its id.
CREATE TABLE workerd.lane (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue text NOT NULL REFERENCES workerd.queue,
    priority smallint NOT NULL,
    node text CHECK (node <> ''),                        -- a lane of a node holds what is pinned to it: others do not see it, so claims never skip
    limited boolean NOT NULL DEFAULT false,              -- its queue has a limit: jobs enter by admission alone
    CONSTRAINT lane_place UNIQUE NULLS NOT DISTINCT (queue, priority, node)
);

-- What daemons have registered: lets an enqueue from SQL use the queue and priority of the task's declaration.
CREATE TABLE workerd.task (
    name text PRIMARY KEY CHECK (name <> '' AND length(name) <= 200),
    queue text NOT NULL,
    priority smallint NOT NULL,
    max_retries smallint NOT NULL,
    limited boolean NOT NULL DEFAULT false,              -- as of a lane
    limit_key text,                                      -- the argument by whose values its jobs take turns
    on_failure text CHECK (on_failure <> '' AND on_failure <> name),  -- the task to enqueue when a job has failed for good
    sensitive boolean NOT NULL DEFAULT false             -- its payloads are not for everybody who reads
);

CREATE TABLE workerd.node (
    id bigint PRIMARY KEY,                               -- random, new at every registration, never revived
    name text NOT NULL,
    pid int NOT NULL,
    version text NOT NULL,
    transport text NOT NULL DEFAULT 'postgres' CHECK (transport IN ('postgres', 'http')),
    heartbeat double precision NOT NULL DEFAULT 5 CHECK (heartbeat > 0),  -- seconds between its beats
    locked boolean NOT NULL,                             -- whether it holds the advisory lock `id` while it lives
    tasks text[] NOT NULL,
    queues text[] NOT NULL,                              -- empty: all
    workers int NOT NULL,
    busy int NOT NULL DEFAULT 0,
    draining boolean NOT NULL DEFAULT false,
    jobs_done bigint NOT NULL DEFAULT 0,
    jobs_failed bigint NOT NULL DEFAULT 0,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    beat timestamptz NOT NULL DEFAULT clock_timestamp(),
    dead_at timestamptz,                                 -- set once: declared dead, or left
    stopped boolean NOT NULL DEFAULT false,              -- it left by itself, after giving back what it held
    forgotten_at timestamptz,                            -- it is not listed any more; its row stays while the history may name it
    token bigint,                                        -- the one with which it registered; NULL: it reaches the database
    rss bigint,                                          -- bytes of the daemon; NULL: it does not report them
    lag double precision,                                -- seconds that its loop took to come to what is new
    CONSTRAINT node_counts CHECK (workers >= 0 AND busy >= 0 AND jobs_done >= 0 AND jobs_failed >= 0),
    CONSTRAINT node_stopped CHECK (dead_at IS NOT NULL OR NOT stopped),
    CONSTRAINT node_forgotten CHECK (dead_at IS NOT NULL OR forgotten_at IS NULL)
) WITH (fillfactor = 70);

-- Vacuum runs without pauses: with those of the default it cleans more slowly than jobs pass through at full speed.
CREATE TABLE workerd.ready (
    lane int NOT NULL,
    pos bigint NOT NULL DEFAULT nextval('workerd.ticket'),
    id bigint NOT NULL,
    attempt int NOT NULL DEFAULT 0,                      -- spent so far; the running one is attempt + 1
    failures int NOT NULL DEFAULT 0,
    crashes smallint NOT NULL DEFAULT 0,
    max_retries smallint,                                -- NULL: as the task says
    task text NOT NULL,
    key text,
    enqueued_at timestamptz NOT NULL DEFAULT now(),
    queued_at timestamptz NOT NULL DEFAULT now(),
    payload jsonb NOT NULL,
    attempts jsonb,                                      -- earlier attempts, the newest 20
    options jsonb,                                       -- deadline, key_until, prefer, batch, trace; `limited` while it holds a slot
    PRIMARY KEY (lane, pos),
    CONSTRAINT ready_spent CHECK (failures >= 0 AND crashes >= 0 AND attempt >= failures + crashes),
    CONSTRAINT ready_call CHECK (octet_length(task) > 0 AND jsonb_typeof(payload) = 'object')
) WITH (
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.2, autovacuum_analyze_scale_factor = 0.05,
    autovacuum_vacuum_cost_delay = 0);

-- Every statement evaluates each check: one more would cost a claim of one job 20 microseconds.
CREATE TABLE workerd.lease (
    node bigint NOT NULL,
    n bigint NOT NULL,                                   -- counted by the node, never used again: (node, n) is the fence
    lane int NOT NULL,
    tickets int8multirange NOT NULL,                     -- exactly what still runs
    cancel int8multirange NOT NULL DEFAULT '{}',
    last bigint NOT NULL,
    claimed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (node, n),
    CONSTRAINT lease_tickets CHECK ((upper(tickets) - 1 <= last) IS TRUE)  -- an empty set has no upper bound: it is refused as well
) WITH (
    fillfactor = 60, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0, vacuum_truncate = off,
    autovacuum_vacuum_cost_delay = 0);

CREATE TABLE workerd.scheduled (
    id bigint PRIMARY KEY,
    lane int NOT NULL,
    run_at timestamptz NOT NULL,
    attempt int NOT NULL DEFAULT 0,
    failures int NOT NULL DEFAULT 0,
    crashes smallint NOT NULL DEFAULT 0,
    max_retries smallint,
    task text NOT NULL,
    key text,
    enqueued_at timestamptz NOT NULL DEFAULT now(),
    payload jsonb NOT NULL,
    attempts jsonb,
    options jsonb,
    waits text,                                          -- NULL: for its time; 'jobs': for other jobs; 'limit': for its turn
    line text,                                           -- whose turn: the value of the task's limit key
    CONSTRAINT scheduled_spent CHECK (failures >= 0 AND crashes >= 0 AND attempt >= failures + crashes),
    CONSTRAINT scheduled_call CHECK (octet_length(task) > 0 AND jsonb_typeof(payload) = 'object'),
    CONSTRAINT scheduled_waits
        CHECK ((waits IS NULL OR waits IN ('jobs', 'limit')) AND (waits IS NOT DISTINCT FROM 'limit') = (line IS NOT NULL))
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

-- Final jobs, partitioned by the day on which they expire: pruning drops whole partitions, whatever each task's TTL.
CREATE TABLE workerd.history (
    id bigint NOT NULL,
    expires_on date NOT NULL,
    lane int NOT NULL,
    state text NOT NULL CHECK (state IN ('succeeded', 'failed', 'cancelled')),
    attempt int NOT NULL,
    failures int NOT NULL,
    crashes smallint NOT NULL,
    max_retries smallint,
    progress real,
    node bigint,
    enqueued_at timestamptz NOT NULL,
    queued_at timestamptz NOT NULL,
    started_at timestamptz,
    finished_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    task text NOT NULL,
    key text,
    payload jsonb NOT NULL,
    result jsonb,
    error text,
    attempts jsonb,
    fingerprint text,                                    -- of a failure; NULL where its node died too often
    options jsonb,
    CONSTRAINT history_spent CHECK (failures >= 0 AND crashes >= 0 AND attempt >= failures + crashes),
    CONSTRAINT history_end CHECK (
        CASE state WHEN 'succeeded' THEN error IS NULL WHEN 'failed' THEN error IS NOT NULL AND result IS NULL ELSE result IS NULL END),
    CONSTRAINT history_run CHECK (
        CASE WHEN started_at IS NULL THEN (state = 'cancelled' OR fingerprint IS NOT DISTINCT FROM 'quarantine') AND node IS NULL
            ELSE node IS NOT NULL AND attempt > 0 END),
    CONSTRAINT history_progress CHECK (progress BETWEEN 0 AND 1)
) PARTITION BY RANGE (expires_on);

CREATE TABLE workerd.history_day (day date PRIMARY KEY);  -- the partitions that exist

-- What was quarantined, for `doctor` and metrics; the jobs themselves are in the history.
CREATE TABLE workerd.quarantined (
    id bigint NOT NULL,
    task text NOT NULL,
    reason text NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
);

-- Holds each key while its job is not final.
CREATE TABLE workerd.key (
    key text PRIMARY KEY CHECK (key <> '' AND length(key) <= 1000),
    id bigint NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

-- As small as the number of jobs that run, and each of them writes again and again: vacuum follows the number of writes alone.
CREATE TABLE workerd.progress (
    id bigint PRIMARY KEY,
    fraction real NOT NULL CHECK (fraction BETWEEN 0 AND 1),
    message text,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (
    fillfactor = 50, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_delay = 0);

-- Lines that jobs log, those of an attempt by their number; kept as long as any job may be.
CREATE TABLE workerd.job_log (
    id bigint NOT NULL,
    attempt int NOT NULL,
    line int NOT NULL,
    at timestamptz NOT NULL,
    level text NOT NULL CHECK (level IN ('debug', 'info', 'warning', 'error')),
    message text NOT NULL,
    PRIMARY KEY (id, attempt, line)
);

-- Steps that a job has behind it, and answers from outside that it waits for. Both stay while the job could run again.
CREATE TABLE workerd.step (
    id bigint NOT NULL,
    name text NOT NULL CHECK (name <> '' AND length(name) <= 200),
    result jsonb NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (id, name)
);
CREATE TABLE workerd.awaited (
    id bigint NOT NULL,
    event text NOT NULL CHECK (event <> '' AND length(event) <= 200),
    until timestamptz NOT NULL,
    timed_out boolean NOT NULL DEFAULT false,            -- the handler knows: an answer that comes later changes nothing
    PRIMARY KEY (id, event)
);
CREATE TABLE workerd.signal (
    id bigint NOT NULL,
    event text NOT NULL CHECK (event <> '' AND length(event) <= 200),
    payload jsonb NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    taken boolean NOT NULL DEFAULT false,                -- the handler has seen it
    PRIMARY KEY (id, event)
);

CREATE TABLE workerd.dependency (
    child bigint NOT NULL,
    parent bigint NOT NULL,
    ended text CHECK (ended IN ('succeeded', 'failed', 'cancelled')),
    news boolean NOT NULL DEFAULT false,                 -- ended, and not yet looked at
    PRIMARY KEY (child, parent)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

-- A parent that ended while its child was being enqueued could not see it. So each child is looked at twice: soon, and when every
-- transaction has ended that ran then.
CREATE TABLE workerd.unlooked (
    child bigint PRIMARY KEY,
    xid bigint,                                          -- NULL: not looked at yet; those below must have ended before the second look
    at timestamptz NOT NULL DEFAULT now()
);

-- A limit of a queue, of a task, or of each value of a task's limit key. What an operator sets goes before what the code declares.
CREATE TABLE workerd.limits (
    scope text NOT NULL CHECK (scope IN ('queue', 'task', 'key')),
    name text NOT NULL CHECK (name <> ''),
    origin text NOT NULL CHECK (origin IN ('declared', 'operator')),
    rate double precision CHECK (rate > 0),              -- jobs that start in a second
    concurrency int CHECK (concurrency > 0),             -- jobs that run at a time
    PRIMARY KEY (scope, name, origin)
);

-- Tokens of the limits with a rate: a start takes one.
CREATE TABLE workerd.bucket (
    scope text NOT NULL, name text NOT NULL, line text NOT NULL,
    tokens double precision NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (scope, name, line)
) WITH (fillfactor = 50);

-- Limited jobs that were admitted, until they are seen to be neither queued nor running.
CREATE TABLE workerd.slot (
    id bigint PRIMARY KEY,
    task text NOT NULL,
    queue text NOT NULL,
    line text NOT NULL
) WITH (autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_delay = 0);

-- Whose turn it was last: lines of one task in one lane are served in turn.
CREATE TABLE workerd.turn (lane int NOT NULL, task text NOT NULL, line text NOT NULL, PRIMARY KEY (lane, task)) WITH (fillfactor = 50);

-- Jobs that are enqueued again and again. The database's clock decides what is due, the row when it has been done.
CREATE TABLE workerd.schedule (
    name text PRIMARY KEY CHECK (name <> '' AND length(name) <= 200),
    task text NOT NULL CHECK (task <> ''),
    payload jsonb NOT NULL CHECK (jsonb_typeof(payload) = 'object'),
    queue text,                                          -- NULL, as the priority: as the task says
    priority int,
    kind text NOT NULL CHECK (kind IN ('cron', 'every', 'at')),
    rule text NOT NULL,
    tz text NOT NULL,
    catch_up text NOT NULL CHECK (catch_up IN ('none', 'last', 'all')),  -- what becomes of due times that were missed
    paused_at timestamptz,
    next_at timestamptz,                                 -- the first due time that had no job; NULL: never again
    last_at timestamptz,                                 -- the last one that had
    declaration jsonb,                                   -- as the code declares it; NULL: set by command. An operator's change holds until this changes
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- What a node is to do, read with its heartbeat; void when the node dies.
CREATE TABLE workerd.node_order (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    node bigint NOT NULL REFERENCES workerd.node ON DELETE CASCADE,
    verb text NOT NULL CHECK (verb IN ('scale', 'drain')),
    arguments jsonb NOT NULL CHECK (jsonb_typeof(arguments) = 'object'),
    ordered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    done_at timestamptz,                                 -- when the node carried it out or refused to
    result jsonb,
    error text,                                          -- why the node refused
    CONSTRAINT node_order_end CHECK (CASE WHEN done_at IS NULL THEN result IS NULL AND error IS NULL ELSE (result IS NULL) <> (error IS NULL) END)
);

-- Tokens of the manager's API.
CREATE TABLE workerd.token (
    id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    name text NOT NULL CHECK (name <> '' AND length(name) <= 100),
    hash bytea NOT NULL CHECK (length(hash) = 32),       -- SHA-256 of the token, which is random enough to need no salt
    scopes text[] NOT NULL CHECK (scopes <> '{}' AND scopes <@ '{read,operate,work}'),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    used_at timestamptz,
    revoked_at timestamptz
);

-- Every change that an operator has made.
CREATE TABLE workerd.audit (
    id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    who text NOT NULL,                                   -- the name of a token
    action text NOT NULL,
    target text,
    detail jsonb
);

-- Counters for `stats`, added up by each node per five minutes; `run` and `wait` are histograms of milliseconds.
CREATE TABLE workerd.tally (
    slot timestamptz NOT NULL,
    node bigint NOT NULL,
    task text NOT NULL,
    queue text NOT NULL,
    succeeded bigint NOT NULL DEFAULT 0,
    failed bigint NOT NULL DEFAULT 0,
    cancelled bigint NOT NULL DEFAULT 0,
    retried bigint NOT NULL DEFAULT 0,
    run int[] NOT NULL,
    wait int[] NOT NULL,
    PRIMARY KEY (slot, node, task, queue)
) WITH (fillfactor = 50);

-- What the fleet did, for charts. Kept by the leader: of each second for ten minutes, each minute for a day, each hour for 90 days.
CREATE TABLE workerd.sample (
    span int NOT NULL CHECK (span IN (1, 60, 3600)),     -- seconds, about
    at timestamptz NOT NULL,
    covers double precision NOT NULL CHECK (covers > 0), -- seconds in which jobs were counted
    succeeded bigint NOT NULL,
    failed bigint NOT NULL,
    cancelled bigint NOT NULL,
    retried bigint NOT NULL,
    queued bigint,                                       -- the most there were; NULL: there were too many to be counted in time
    running bigint,
    scheduled bigint,
    oldest double precision,                             -- seconds for which the first in line had been queued, the longest; NULL: none waited
    run bigint[] NOT NULL,                               -- histograms as in tally: they add up to longer spans
    wait bigint[] NOT NULL,
    run_p50 double precision,                            -- milliseconds; NULL: nothing ended
    run_p95 double precision,
    wait_p95 double precision,
    PRIMARY KEY (span, at)
);
