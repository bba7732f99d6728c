CREATE OR REPLACE FUNCTION workerd.trace_of(a_traceparent text, a_tracestate text) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN a_traceparent ~ '^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$' THEN jsonb_strip_nulls(jsonb_build_object(
        'traceparent', a_traceparent, 'tracestate', CASE WHEN length(a_tracestate) BETWEEN 1 AND 512 THEN a_tracestate END)) END
$$;

COMMENT ON FUNCTION workerd.trace_of IS
    'Returns the part of a job''s options that names its trace, in the form of W3C Trace Context; NULL for an '
    'invalid traceparent, which the standard says to ignore. A tracestate that is too long is dropped.';
