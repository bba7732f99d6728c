CREATE OR REPLACE FUNCTION workerd.lane_for(a_task text, a_queue text, a_priority int, a_node text DEFAULT NULL) RETURNS int LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    to_queue text := a_queue;
    to_priority int := a_priority;
BEGIN
    IF a_queue IS NULL OR a_priority IS NULL THEN
        SELECT coalesce(a_queue, t.queue), coalesce(a_priority, t.priority) INTO to_queue, to_priority FROM workerd.task t WHERE t.name = a_task;
    END IF;
    RETURN workerd.lane_of(coalesce(to_queue, a_queue, 'default'), coalesce(to_priority, a_priority, 0), a_node);
END $$;

COMMENT ON FUNCTION workerd.lane_for IS
    'Returns the lane for a job of a task: queue and priority as given, otherwise as the task was registered, '
    'otherwise the default ones.';
