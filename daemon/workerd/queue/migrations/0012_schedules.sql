-- Schedules: jobs that are enqueued again and again. The database's clock decides what is due, the row when it has been done.

-- part: table
CREATE TABLE workerd.schedule (
    name text PRIMARY KEY CHECK (name <> '' AND length(name) <= 200),
    task text NOT NULL CHECK (task <> ''),
    payload jsonb NOT NULL CHECK (jsonb_typeof(payload) = 'object'),
    queue text,                         -- NULL, as the priority: as the task says
    priority int,
    kind text NOT NULL CHECK (kind IN ('cron', 'every', 'at')),
    rule text NOT NULL,
    tz text NOT NULL,
    catch_up text NOT NULL CHECK (catch_up IN ('none', 'last', 'all')),  -- what becomes of due times that were missed
    paused_at timestamptz,
    next_at timestamptz,                -- the first due time that had no job; NULL: never again
    last_at timestamptz,                -- the last one that had
    declaration jsonb,                  -- as the code declares it; NULL: set by command. What an operator changes holds until this changes
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX schedule_next ON workerd.schedule (next_at) WHERE paused_at IS NULL;

-- part: functions
-- Enqueues the jobs of these due times and moves the schedule on, where it is still as it was seen: else somebody else did it, or changed it.
-- Returns whether it did.
CREATE FUNCTION workerd.fire(a_name text, a_next_at timestamptz, a_updated_at timestamptz, a_due timestamptz[], a_following timestamptz) RETURNS boolean
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
