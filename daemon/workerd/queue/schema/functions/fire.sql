CREATE OR REPLACE FUNCTION workerd.fire(a_name text, a_next_at timestamptz, a_updated_at timestamptz, a_due timestamptz[], a_following timestamptz) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    s workerd.schedule;
BEGIN
    SELECT * INTO s FROM workerd.schedule c
    WHERE c.name = a_name AND c.next_at = a_next_at AND c.updated_at = a_updated_at AND c.paused_at IS NULL FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE workerd.schedule c SET next_at = a_following, last_at = coalesce(a_due[cardinality(a_due)], c.last_at) WHERE c.name = a_name;
    PERFORM workerd.enqueue(s.task, s.payload, queue => s.queue, priority => s.priority,
        key => format('schedule:%s@%s', s.name, to_char(due AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')))
    FROM unnest(a_due) due;
    RETURN true;
END $$;

COMMENT ON FUNCTION workerd.fire IS
    'Enqueues the jobs for these due times of a schedule and moves the schedule on, if it is still as it was seen. '
    'Returns whether it did; otherwise another leader did, or somebody changed the schedule.';
