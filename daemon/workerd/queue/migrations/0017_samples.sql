-- What was, for charts; what nodes tell of themselves.

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
    run int[] NOT NULL,                 -- histograms as in tally: they add up to longer spans
    wait int[] NOT NULL,
    run_p50 double precision,           -- milliseconds; NULL: nothing ended
    run_p95 double precision,
    wait_p95 double precision,
    PRIMARY KEY (span, at)
);

-- part: nodes
ALTER TABLE workerd.node ADD COLUMN rss bigint;              -- bytes of the daemon; NULL: it does not tell
ALTER TABLE workerd.node ADD COLUMN lag double precision;    -- seconds that its loop took to come to what is new
