CREATE OR REPLACE FUNCTION workerd.lane_of(a_queue text, a_priority int, a_node text DEFAULT NULL) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    found_id int;
BEGIN
    SELECT l.id INTO found_id FROM workerd.lane l WHERE l.queue = a_queue AND l.priority = a_priority AND l.node IS NOT DISTINCT FROM a_node;
    IF found_id IS NOT NULL THEN
        RETURN found_id;
    END IF;
    PERFORM workerd.need_options('-', a_queue, a_priority, NULL, NULL, a_node);
    INSERT INTO workerd.queue (name) VALUES (a_queue) ON CONFLICT DO NOTHING;
    INSERT INTO workerd.lane (queue, priority, node, limited)
    VALUES (a_queue, a_priority, a_node, EXISTS (SELECT FROM workerd.limit_in_force f WHERE f.scope = 'queue' AND f.name = a_queue
        AND (f.rate IS NOT NULL OR f.concurrency IS NOT NULL))) ON CONFLICT DO NOTHING;
    PERFORM pg_notify('workerd', 'lanes');
    SELECT l.id INTO STRICT found_id FROM workerd.lane l
    WHERE l.queue = a_queue AND l.priority = a_priority AND l.node IS NOT DISTINCT FROM a_node;
    RETURN found_id;
END $$;

COMMENT ON FUNCTION workerd.lane_of IS
    'Returns the id of the lane for a queue, a priority and a node, and makes the lane when it does not exist. '
    'Refuses names and priorities that cannot be stored.';
