-- Checks of what cannot be, and a vacuum that keeps up.
-- A check is added for new rows first: that needs the table to itself, but only for a moment. The rows that are there are looked at
-- in a part of its own, beside which others go on. An autovacuum in the way is ended by waiting for a lock that hinders nobody else.
-- Times are compared by no check: a clock may be set back.

-- part: ready: counts that fit each other, a task with a name, an object of arguments
SET LOCAL lock_timeout = '3s';
LOCK TABLE workerd.ready IN SHARE UPDATE EXCLUSIVE MODE;
SET LOCAL lock_timeout = '100ms';
ALTER TABLE workerd.ready
    DROP CONSTRAINT ready_attempt_check, DROP CONSTRAINT ready_failures_check, DROP CONSTRAINT ready_crashes_check,
    ADD CONSTRAINT ready_spent CHECK (failures >= 0 AND crashes >= 0 AND attempt >= failures + crashes) NOT VALID,
    ADD CONSTRAINT ready_call CHECK (octet_length(task) > 0 AND jsonb_typeof(payload) = 'object') NOT VALID;

-- part: scheduled: the same
SET LOCAL lock_timeout = '3s';
LOCK TABLE workerd.scheduled IN SHARE UPDATE EXCLUSIVE MODE;
SET LOCAL lock_timeout = '100ms';
ALTER TABLE workerd.scheduled
    DROP CONSTRAINT scheduled_attempt_check, DROP CONSTRAINT scheduled_failures_check, DROP CONSTRAINT scheduled_crashes_check,
    ADD CONSTRAINT scheduled_spent CHECK (failures >= 0 AND crashes >= 0 AND attempt >= failures + crashes) NOT VALID,
    ADD CONSTRAINT scheduled_call CHECK (octet_length(task) > 0 AND jsonb_typeof(payload) = 'object') NOT VALID;

-- part: lease: tickets up to the last one. Each check is read anew by every statement: one more would cost a claim of one job 20 us.
SET LOCAL lock_timeout = '3s';
LOCK TABLE workerd.lease IN SHARE UPDATE EXCLUSIVE MODE;
SET LOCAL lock_timeout = '100ms';
ALTER TABLE workerd.lease
    DROP CONSTRAINT lease_tickets_check,  -- an empty set has no upper bound, so the next one refuses it as well
    ADD CONSTRAINT lease_tickets CHECK ((upper(tickets) - 1 <= last) IS TRUE) NOT VALID;

-- part: history: a reason for each failure and for no success, a node and a start for each job that ran
SET LOCAL lock_timeout = '3s';
LOCK TABLE workerd.history IN SHARE UPDATE EXCLUSIVE MODE;
SET LOCAL lock_timeout = '100ms';
ALTER TABLE workerd.history
    ADD CONSTRAINT history_spent CHECK (failures >= 0 AND crashes >= 0 AND attempt >= failures + crashes) NOT VALID,
    ADD CONSTRAINT history_end CHECK (
        CASE state WHEN 'succeeded' THEN error IS NULL WHEN 'failed' THEN error IS NOT NULL AND result IS NULL ELSE result IS NULL END) NOT VALID,
    ADD CONSTRAINT history_run CHECK (
        CASE WHEN started_at IS NULL THEN state = 'cancelled' AND node IS NULL ELSE node IS NOT NULL AND attempt > 0 END) NOT VALID,
    ADD CONSTRAINT history_progress CHECK (progress BETWEEN 0 AND 1) NOT VALID;

-- part: node: no count below zero, none has left and lives
ALTER TABLE workerd.node
    ADD CONSTRAINT node_counts CHECK (workers >= 0 AND busy >= 0 AND jobs_done >= 0 AND jobs_failed >= 0) NOT VALID,
    ADD CONSTRAINT node_stopped CHECK (dead_at IS NOT NULL OR NOT stopped) NOT VALID;

-- part outside of a transaction: jobs that no daemon can run are cancelled: earlier versions took them
SELECT workerd.cancel(id, 2592000) FROM (
    SELECT id FROM workerd.ready WHERE task = '' OR jsonb_typeof(payload) <> 'object'
    UNION ALL SELECT id FROM workerd.scheduled WHERE task = '' OR jsonb_typeof(payload) <> 'object') AS never;

-- part outside of a transaction: ready: the rows that are there fit as well
ALTER TABLE workerd.ready VALIDATE CONSTRAINT ready_spent, VALIDATE CONSTRAINT ready_call;

-- part outside of a transaction: scheduled: the rows that are there fit as well
ALTER TABLE workerd.scheduled VALIDATE CONSTRAINT scheduled_spent, VALIDATE CONSTRAINT scheduled_call;

-- part outside of a transaction: lease: the rows that are there fit as well
ALTER TABLE workerd.lease VALIDATE CONSTRAINT lease_tickets;

-- part outside of a transaction: history: the rows that are there fit as well
ALTER TABLE workerd.history VALIDATE CONSTRAINT history_spent, VALIDATE CONSTRAINT history_end, VALIDATE CONSTRAINT history_run,
    VALIDATE CONSTRAINT history_progress;

-- part outside of a transaction: node: the rows that are there fit as well
ALTER TABLE workerd.node VALIDATE CONSTRAINT node_counts, VALIDATE CONSTRAINT node_stopped;

-- part outside of a transaction: ready: vacuum without pauses
-- With those of the default it cleans more slowly than jobs pass through at full speed.
ALTER TABLE workerd.ready SET (autovacuum_vacuum_cost_delay = 0);

-- part outside of a transaction: lease: vacuum without pauses
ALTER TABLE workerd.lease SET (autovacuum_vacuum_cost_delay = 0);

-- part outside of a transaction: scheduled: vacuum without pauses
ALTER TABLE workerd.scheduled SET (autovacuum_vacuum_cost_delay = 0);

-- part outside of a transaction: key: vacuum without pauses
ALTER TABLE workerd.key SET (autovacuum_vacuum_cost_delay = 0);

-- part outside of a transaction: progress: vacuum without pauses, by the number of writes alone
-- The table is as small as the number of jobs that run, and each of them writes again and again.
ALTER TABLE workerd.progress SET (
    autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_delay = 0);
