CREATE OR REPLACE FUNCTION workerd.need_options(a_task text, a_queue text, a_priority int, a_max_retries int, a_key text, a_node text)
RETURNS void LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    wrong text := CASE
        WHEN a_task IS NULL OR a_task = '' THEN 'the name of a task is empty'
        WHEN concat(a_task, a_queue, a_node) ~ '[[:cntrl:]]' THEN 'names have no control characters'
        WHEN length(a_task) > 200 THEN format('task has %s characters, allowed are 200', length(a_task))
        WHEN a_queue = '' THEN 'the name of a queue is empty'
        WHEN length(a_queue) > 200 THEN format('queue has %s characters, allowed are 200', length(a_queue))
        WHEN a_priority NOT BETWEEN -32768 AND 32767 THEN format('priority %s is not between -32768 and 32767', a_priority)
        WHEN a_max_retries NOT BETWEEN 0 AND 32767 THEN format('max_retries is %s, allowed is 0 to 32767', a_max_retries)
        WHEN a_key = '' THEN 'key is empty: leave it out, or name what the job is about'
        WHEN octet_length(a_key) > 1000 THEN format('key has %s bytes, allowed are 1,000', octet_length(a_key))
        WHEN a_node = '' THEN 'pin and prefer take the name of a node'
        WHEN length(a_node) > 200 THEN format('the name of a node has %s characters, allowed are 200', length(a_node)) END;
BEGIN
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION '%', wrong USING ERRCODE = 'invalid_parameter_value';
    END IF;
END $$;

COMMENT ON FUNCTION workerd.need_options IS
    'Raises an error for arguments of an enqueue that cannot be stored or found again; NULL stands for an argument '
    'that is not given.';
