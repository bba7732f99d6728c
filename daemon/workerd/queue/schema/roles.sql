-- What each role may do with the schema: everything that it may, anew each time. Other functions than those below run with the rights of
-- their caller.
DO $$
DECLARE
    object text;
BEGIN
    FOR object IN
        SELECT c.oid::regclass FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = 'workerd' AND c.relowner = n.nspowner AND c.relkind IN ('r', 'p', 'v', 'S') AND NOT c.relispartition
    LOOP
        EXECUTE format('REVOKE ALL ON %s FROM {prefix}_enqueue, {prefix}_work, {prefix}_operate, {prefix}_read', object);
    END LOOP;
END $$;
GRANT USAGE ON SCHEMA workerd TO {prefix}_enqueue, {prefix}_work, {prefix}_operate, {prefix}_read;
GRANT SELECT ON workerd.migration, workerd.migration_part, workerd.repeatable TO {prefix}_enqueue, {prefix}_work, {prefix}_operate, {prefix}_read;

-- enqueue: puts jobs into the queue and answers them, by functions that act as the owner and look at what they are given; it has no rights
-- on tables, so it reads no payload, nor does it write what these functions would refuse.
GRANT EXECUTE ON FUNCTION workerd.enqueue, workerd.enqueue_many, workerd.signal TO {prefix}_enqueue;

-- work: what a daemon does, and what the handlers of its jobs enqueue and await
GRANT USAGE ON SEQUENCE workerd.job_id, workerd.ticket TO {prefix}_work;
GRANT SELECT, INSERT (name) ON workerd.queue TO {prefix}_work;
GRANT SELECT, INSERT (queue, priority, node, limited) ON workerd.lane TO {prefix}_work;
GRANT SELECT, INSERT, UPDATE, DELETE ON
    workerd.ready, workerd.scheduled, workerd.lease, workerd.key, workerd.progress, workerd.step, workerd.awaited, workerd.signal,
    workerd.job_log, workerd.tally, workerd.node, workerd.node_order, workerd.dependency, workerd.unlooked, workerd.slot, workerd.bucket,
    workerd.turn, workerd.schedule, workerd.sample, workerd.quarantined
TO {prefix}_work;
GRANT SELECT, INSERT, DELETE, UPDATE ON workerd.limits TO {prefix}_work;
GRANT UPDATE (limited) ON workerd.lane TO {prefix}_work;
GRANT SELECT, INSERT, UPDATE ON workerd.task TO {prefix}_work;
GRANT SELECT, INSERT ON workerd.history TO {prefix}_work;
GRANT SELECT ON workerd.history_day, workerd.job, workerd.task_queue, workerd.limit_in_force TO {prefix}_work;
GRANT EXECUTE ON FUNCTION workerd.add_history_days, workerd.drop_history_day, workerd.forget_changes TO {prefix}_work;
DO $$
BEGIN
    IF current_setting('server_version_num')::int >= 170000 THEN  -- before, only the owner can rebuild an index
        GRANT MAINTAIN ON workerd.ready, workerd.lease, workerd.scheduled, workerd.key, workerd.node TO {prefix}_work;
    END IF;
END $$;

-- operate: what workerctl does to jobs, queues and nodes
GRANT USAGE ON SEQUENCE workerd.job_id, workerd.ticket TO {prefix}_operate;
GRANT INSERT (name) ON workerd.queue TO {prefix}_operate;
GRANT INSERT (queue, priority, node, limited) ON workerd.lane TO {prefix}_operate;
GRANT SELECT, INSERT, UPDATE, DELETE ON workerd.ready, workerd.scheduled, workerd.key TO {prefix}_operate;
GRANT INSERT, DELETE ON workerd.history TO {prefix}_operate;
GRANT DELETE ON workerd.job_log TO {prefix}_operate;
GRANT UPDATE (cancel) ON workerd.lease TO {prefix}_operate;
GRANT UPDATE (paused_at, ageing) ON workerd.queue TO {prefix}_operate;
GRANT INSERT, UPDATE, DELETE ON workerd.limits, workerd.schedule TO {prefix}_operate;
GRANT UPDATE (limited) ON workerd.lane, workerd.task TO {prefix}_operate;
GRANT UPDATE (ended, news) ON workerd.dependency TO {prefix}_operate;
GRANT DELETE ON workerd.awaited TO {prefix}_operate;
GRANT UPDATE (forgotten_at) ON workerd.node TO {prefix}_operate;
GRANT INSERT ON workerd.node_order TO {prefix}_operate;
GRANT SELECT, INSERT, UPDATE ON workerd.token TO {prefix}_operate;
GRANT SELECT, INSERT ON workerd.audit TO {prefix}_operate;

-- read: everything, payloads and results too, since the views show them
GRANT SELECT ON
    workerd.job, workerd.task_queue, workerd.ready, workerd.scheduled, workerd.history, workerd.history_day, workerd.lease, workerd.lane,
    workerd.queue, workerd.task, workerd.key, workerd.progress, workerd.step, workerd.awaited, workerd.signal, workerd.job_log,
    workerd.tally, workerd.node, workerd.node_order, workerd.dependency, workerd.unlooked, workerd.slot, workerd.bucket, workerd.turn,
    workerd.limits, workerd.limit_in_force, workerd.schedule, workerd.job_running, workerd.job_queued, workerd.job_waiting, workerd.job_ended,
    workerd.audit, workerd.sample, workerd.quarantined
TO {prefix}_read;
