-- Statements whose best plan is an index scan whatever the statistics say are planned once (generic), with the other scans switched off:
-- to plan for 500 given tickets each time takes longer than to delete them. Nor is anything compiled, which the estimates for a large table
-- would have the server do at each call, and which takes longer than the call. The same holds for finish_succeeded and keep_succeeded.

CREATE OR REPLACE FUNCTION workerd.cycle(
    a_node bigint, a_n bigint[], a_from bigint[], a_to bigint[],
    k_n bigint[], k_pos bigint[], k_ran double precision[], k_result text[], k_ttl double precision[], k_progress real[],
    c_n bigint, c_lanes int[], c_lows bigint[], c_batch int, c_tasks text[], c_free boolean, c_alone boolean, c_last_chance int, c_rest boolean
) RETURNS workerd.answer
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    lost record;
    got workerd.answer;
BEGIN
    lost := workerd.finish_succeeded(a_node, a_n, a_from, a_to, k_n, k_pos, k_ran, k_result, k_ttl, k_progress);
    got := workerd.claim(a_node, c_n, c_lanes, c_lows, c_batch, c_tasks, c_free, c_alone, c_last_chance, c_rest);
    got.lost_n := lost.lost_n;
    got.lost_pos := lost.lost_pos;
    RETURN got;
END $$;

COMMENT ON FUNCTION workerd.cycle IS
    'Finishes successful jobs and claims the next ones in one transaction. When the lane stays locked the claim '
    'fails and undoes the finish: then finish and claim one after the other.';
