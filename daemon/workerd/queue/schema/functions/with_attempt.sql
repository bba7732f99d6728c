CREATE OR REPLACE FUNCTION workerd.with_attempt(
    a_attempts jsonb, a_attempt int, a_node text, a_started timestamptz, a_outcome text, a_error text
) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT workerd.with_attempt(a_attempts, a_attempt, a_node, a_started, a_outcome, a_error, NULL, NULL)
$$;

CREATE OR REPLACE FUNCTION workerd.with_attempt(
    a_attempts jsonb, a_attempt int, a_node text, a_started timestamptz, a_outcome text, a_error text, a_fingerprint text,
    a_ended timestamptz DEFAULT NULL
) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN jsonb_array_length(v) > 20 THEN v - 0 ELSE v END
    FROM (SELECT coalesce(a_attempts, '[]') || jsonb_build_array(jsonb_build_object(
        'attempt', a_attempt, 'node', a_node, 'started_at', a_started, 'ended_at', coalesce(a_ended, clock_timestamp()), 'outcome', a_outcome,
        'error', CASE WHEN length(a_error) > 4000 THEN left(a_error, 1500) || E'\n[…]\n' || right(a_error, 2400) ELSE a_error END)
        || CASE WHEN a_fingerprint IS NULL THEN '{}' ELSE jsonb_build_object('fingerprint', a_fingerprint) END) AS v) x
$$;

COMMENT ON FUNCTION workerd.with_attempt(jsonb, int, text, timestamptz, text, text) IS
    'Adds an entry to a job''s list of attempts. The list keeps the newest 20, and the beginning and the end of '
    'each error.';

COMMENT ON FUNCTION workerd.with_attempt(jsonb, int, text, timestamptz, text, text, text, timestamptz) IS
    'Adds an entry to a job''s list of attempts. The list keeps the newest 20, and the beginning and the end of '
    'each error.';
