CREATE OR REPLACE FUNCTION workerd.settle(a_rows int, a_node bigint, a_ttl double precision) RETURNS int
LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    fresh bigint[];
    heard bigint[];
    oldest bigint;
BEGIN
    IF NOT EXISTS (SELECT FROM workerd.unlooked) AND NOT EXISTS (SELECT FROM workerd.dependency WHERE news) THEN
        RETURN 0;
    END IF;
    oldest := pg_snapshot_xmin(pg_current_snapshot())::text;  -- before the look: what began earlier is seen by it
    fresh := ARRAY(
        SELECT u.child FROM workerd.unlooked u
        WHERE u.xid IS NULL OR u.xid <= oldest OR u.at < clock_timestamp() - interval '10 s'
        ORDER BY u.child LIMIT a_rows);
    IF cardinality(fresh) > 0 THEN
        -- Each place in one snapshot: a job that moves is in one of them. One that is nowhere has succeeded and was not kept.
        WITH open AS MATERIALIZED (
            SELECT d.child, d.parent FROM workerd.dependency d WHERE d.child = ANY (fresh) AND d.ended IS NULL FOR UPDATE SKIP LOCKED)
        UPDATE workerd.dependency d SET news = true, ended = coalesce(
            (SELECT h.state FROM workerd.history h WHERE h.id = open.parent LIMIT 1), 'succeeded')
        FROM open WHERE d.child = open.child AND d.parent = open.parent
            AND NOT EXISTS (SELECT FROM workerd.ready r WHERE r.id = open.parent) AND NOT EXISTS (SELECT FROM workerd.scheduled s WHERE s.id = open.parent);
        DELETE FROM workerd.unlooked u WHERE u.child = ANY (fresh) AND u.xid <= oldest;
        UPDATE workerd.unlooked u SET xid = coalesce(u.xid, pg_current_xact_id()::text::bigint), at = clock_timestamp() WHERE u.child = ANY (fresh);
    END IF;
    heard := ARRAY(SELECT DISTINCT d.child FROM workerd.dependency d WHERE d.news LIMIT a_rows);
    heard := heard || ARRAY(  -- a batch of nothing has no news
        SELECT s.id FROM workerd.scheduled s WHERE s.id = ANY (fresh) AND s.waits = 'jobs' AND s.options ? 'batch'
            AND NOT EXISTS (SELECT FROM workerd.dependency d WHERE d.child = s.id));
    UPDATE workerd.dependency d SET news = false WHERE d.news AND d.child = ANY (heard);
    IF workerd.is_careful() THEN
        PERFORM workerd.sift(format('SELECT workerd.decide($1, %s, %s)', a_node, a_ttl), heard);
    ELSE
        PERFORM workerd.decide(heard, a_node, a_ttl);
    END IF;
    RETURN cardinality(fresh) + cardinality(heard);
END $$;

COMMENT ON FUNCTION workerd.settle IS
    'Decides about up to a_rows jobs that wait for others: those whose parents ended as required become due, those '
    'whose parents cannot do so any more are cancelled, and a batch whose jobs have all ended succeeds. Returns how '
    'many jobs were looked at.';
