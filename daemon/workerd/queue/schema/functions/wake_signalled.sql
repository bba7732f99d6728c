CREATE OR REPLACE FUNCTION workerd.wake_signalled() RETURNS void LANGUAGE plpgsql VOLATILE SET enable_seqscan = off AS $$
BEGIN
    UPDATE workerd.scheduled s SET run_at = clock_timestamp() WHERE s.id = ANY (ARRAY(
        SELECT c.id FROM workerd.signal g JOIN workerd.awaited w USING (id, event) JOIN workerd.scheduled c USING (id)
        WHERE NOT g.taken AND NOT w.timed_out AND c.run_at > clock_timestamp() AND c.attempts -> -1 ->> 'outcome' = 'snoozed'
        FOR UPDATE OF c SKIP LOCKED));
END $$;

COMMENT ON FUNCTION workerd.wake_signalled IS
    'Makes jobs due that wait for an event which has been signalled. It is called repeatedly, since a transaction '
    'that signals and a job that is about to wait do not see each other.';
