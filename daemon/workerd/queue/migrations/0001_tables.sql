-- A job is in exactly one of ready (queued or running), scheduled and history.
-- Running = its ticket `pos` is in a lease of its lane. Only rescue and give-back update a ready row, and only its counters.

CREATE SEQUENCE workerd.job_id;
CREATE SEQUENCE workerd.ticket CACHE 1;  -- drawn at insert: a cached block would let later commits draw earlier tickets for minutes

CREATE TABLE workerd.queue (
    name text PRIMARY KEY CHECK (name <> '' AND length(name) <= 200),
    paused_at timestamptz
);

-- One queue at one priority. Claims of a lane are serialised by an advisory lock on its id.
CREATE TABLE workerd.lane (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue text NOT NULL REFERENCES workerd.queue,
    priority smallint NOT NULL,
    UNIQUE (queue, priority)
);

-- What daemons have registered: lets an enqueue from SQL use the queue and priority of the task's declaration.
CREATE TABLE workerd.task (
    name text PRIMARY KEY CHECK (name <> '' AND length(name) <= 200),
    queue text NOT NULL,
    priority smallint NOT NULL,
    max_retries smallint NOT NULL
);

CREATE TABLE workerd.node (
    id bigint PRIMARY KEY,              -- random, new at every registration, never revived
    name text NOT NULL,
    pid int NOT NULL,
    version text NOT NULL,
    transport text NOT NULL DEFAULT 'postgres' CHECK (transport IN ('postgres', 'http')),
    heartbeat double precision NOT NULL DEFAULT 5 CHECK (heartbeat > 0),  -- seconds between its beats
    locked boolean NOT NULL,            -- whether it holds the advisory lock `id` while it lives
    tasks text[] NOT NULL,
    queues text[] NOT NULL,             -- empty: all
    workers int NOT NULL,
    busy int NOT NULL DEFAULT 0,
    draining boolean NOT NULL DEFAULT false,
    jobs_done bigint NOT NULL DEFAULT 0,
    jobs_failed bigint NOT NULL DEFAULT 0,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    beat timestamptz NOT NULL DEFAULT clock_timestamp(),
    dead_at timestamptz,                -- set once: declared dead, or left
    stopped boolean NOT NULL DEFAULT false  -- it left by itself, after giving back what it held
) WITH (fillfactor = 70);

CREATE TABLE workerd.ready (
    lane int NOT NULL,
    pos bigint NOT NULL DEFAULT nextval('workerd.ticket'),
    id bigint NOT NULL,
    attempt int NOT NULL DEFAULT 0 CHECK (attempt >= 0),     -- spent so far; the running one is attempt + 1
    failures int NOT NULL DEFAULT 0 CHECK (failures >= 0),
    crashes smallint NOT NULL DEFAULT 0 CHECK (crashes >= 0),
    max_retries smallint,                                    -- NULL: as the task says
    task text NOT NULL,
    key text,
    enqueued_at timestamptz NOT NULL DEFAULT now(),
    queued_at timestamptz NOT NULL DEFAULT now(),
    payload jsonb NOT NULL,
    attempts jsonb,                                          -- earlier attempts, the newest 20
    PRIMARY KEY (lane, pos)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.2, autovacuum_analyze_scale_factor = 0.05);
CREATE UNIQUE INDEX ready_id ON workerd.ready (id);

CREATE TABLE workerd.lease (
    node bigint NOT NULL,
    n bigint NOT NULL,                  -- counted by the node, never used again: (node, n) is the fence
    lane int NOT NULL,
    tickets int8multirange NOT NULL CHECK (NOT isempty(tickets)),  -- exactly what still runs
    cancel int8multirange NOT NULL DEFAULT '{}',
    last bigint NOT NULL,
    claimed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (node, n)
) WITH (fillfactor = 60, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0, vacuum_truncate = off);
CREATE INDEX lease_last ON workerd.lease (lane, last);

CREATE TABLE workerd.scheduled (
    id bigint PRIMARY KEY,
    lane int NOT NULL,
    run_at timestamptz NOT NULL,
    attempt int NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    failures int NOT NULL DEFAULT 0 CHECK (failures >= 0),
    crashes smallint NOT NULL DEFAULT 0 CHECK (crashes >= 0),
    max_retries smallint,
    task text NOT NULL,
    key text,
    enqueued_at timestamptz NOT NULL DEFAULT now(),
    payload jsonb NOT NULL,
    attempts jsonb
) WITH (autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX scheduled_run_at ON workerd.scheduled (run_at);

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
    attempts jsonb
) PARTITION BY RANGE (expires_on);
CREATE INDEX history_id ON workerd.history (id);

CREATE TABLE workerd.history_day (day date PRIMARY KEY);  -- the partitions that exist

-- Holds each key while its job is not final.
CREATE TABLE workerd.key (
    key text PRIMARY KEY CHECK (key <> '' AND length(key) <= 1000),
    id bigint NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.02);

CREATE TABLE workerd.progress (
    id bigint PRIMARY KEY,
    fraction real NOT NULL CHECK (fraction BETWEEN 0 AND 1),
    message text,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);

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
