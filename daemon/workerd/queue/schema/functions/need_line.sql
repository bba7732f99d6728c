CREATE OR REPLACE FUNCTION workerd.need_line(a_task text, a_payload jsonb) RETURNS void LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF octet_length(workerd.line_of(a_task, a_payload)) > 1000 THEN
        RAISE EXCEPTION 'the argument of % by which its limit counts has % bytes, allowed are 1,000', a_task,
            octet_length(workerd.line_of(a_task, a_payload)) USING ERRCODE = 'invalid_parameter_value';
    END IF;
END $$;

COMMENT ON FUNCTION workerd.need_line IS
    'Raises an error when the argument that a limit counts by is too long for an index.';
