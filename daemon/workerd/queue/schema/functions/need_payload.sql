CREATE OR REPLACE FUNCTION workerd.need_payload(a_task text, a_payload jsonb) RETURNS void LANGUAGE plpgsql STABLE AS $$
DECLARE
    fault text := CASE WHEN jsonb_typeof(a_payload) IS DISTINCT FROM 'object' THEN 'is not a JSON object of its arguments'
        ELSE workerd.json_fault(a_payload) END;
BEGIN
    IF fault IS NOT NULL THEN
        RAISE EXCEPTION 'the payload of % %', a_task, fault USING ERRCODE = 'invalid_parameter_value';
    END IF;
END $$;

COMMENT ON FUNCTION workerd.need_payload IS
    'Raises an error for a payload that is no JSON object, too large or too deep.';
