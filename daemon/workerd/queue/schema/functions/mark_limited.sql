CREATE OR REPLACE FUNCTION workerd.mark_limited() RETURNS void LANGUAGE sql VOLATILE AS $$
    UPDATE workerd.task t SET limited = NOT t.limited WHERE t.limited IS DISTINCT FROM (t.limit_key IS NOT NULL OR EXISTS (
        SELECT FROM workerd.limit_in_force f WHERE f.scope IN ('task', 'key') AND f.name = t.name AND (f.rate IS NOT NULL OR f.concurrency IS NOT NULL)));
    UPDATE workerd.lane l SET limited = NOT l.limited WHERE l.limited IS DISTINCT FROM EXISTS (
        SELECT FROM workerd.limit_in_force f WHERE f.scope = 'queue' AND f.name = l.queue AND (f.rate IS NOT NULL OR f.concurrency IS NOT NULL));
    SELECT workerd.wake_leader();
$$;

COMMENT ON FUNCTION workerd.mark_limited IS
    'Marks tasks and lanes that have a limit, after limits have changed. Jobs that wait in a group that no longer '
    'exists are let in by admission.';
