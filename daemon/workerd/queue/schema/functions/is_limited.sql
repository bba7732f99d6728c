CREATE OR REPLACE FUNCTION workerd.is_limited(a_lane int, a_task text) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM workerd.lane l WHERE l.id = a_lane AND l.limited) OR EXISTS (SELECT FROM workerd.task t WHERE t.name = a_task AND t.limited)
$$;

COMMENT ON FUNCTION workerd.is_limited IS
    'Says whether a task or a lane has a limit.';
