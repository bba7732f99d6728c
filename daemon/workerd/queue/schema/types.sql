-- What a claim answers, and before it the attempts that a finish no longer owned. Element by element, in the order of tickets: the jobs.
CREATE TYPE workerd.answer AS (
    lost_n bigint[], lost_pos bigint[],  -- leases and tickets of ends that were dropped because the job had been rescued
    lane int,                            -- NULL: every lane was empty from its low bound on
    last bigint,                         -- the highest ticket that need not be looked at again
    pos bigint[], id bigint[], task text[],
    waited double precision[],           -- seconds since the job became queued
    payload text[],                      -- NULL, as a whole or in parts: ask workerd.payloads
    marks jsonb,                         -- [pos, attempts spent, failures, crashes, max_retries, key, options, seconds until the deadline]
    asleep boolean,                      -- nothing was there, and the next enqueue into one of the lanes notifies
    oldest_xid bigint, next_xid bigint   -- then: transactions that could still commit tickets drawn before are between
);
