CREATE OR REPLACE FUNCTION workerd.line_of(a_task text, a_payload jsonb) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT coalesce((SELECT a_payload ->> t.limit_key FROM workerd.task t WHERE t.name = a_task), '')
$$;

COMMENT ON FUNCTION workerd.line_of IS
    'Returns the group of a job under its task''s limit: the value of the argument that limit_key names, or an '
    'empty text.';
