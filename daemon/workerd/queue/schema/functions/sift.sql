CREATE OR REPLACE FUNCTION workerd.sift(a_statement text, a_keys bigint[], a_lane int DEFAULT NULL) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    half int := cardinality(a_keys) / 2;
    reason text;
BEGIN
    BEGIN
        EXECUTE a_statement USING a_keys;
        RETURN;
    EXCEPTION WHEN data_exception OR integrity_constraint_violation OR program_limit_exceeded OR raise_exception THEN
        reason := SQLERRM;
    END;
    IF half > 0 THEN
        PERFORM workerd.sift(a_statement, a_keys[:half], a_lane);
        PERFORM workerd.sift(a_statement, a_keys[half + 1:], a_lane);
    ELSE
        PERFORM workerd.quarantine(a_keys[1], a_lane, format('it cannot be processed: %s', reason));
    END IF;
END $$;

COMMENT ON FUNCTION workerd.sift IS
    'Runs a statement for rows, its first argument. When the statement is refused because of what the rows hold it '
    'is run again for each half of them, until the row is found, which is quarantined. The rows are ids in '
    'workerd.scheduled, or tickets in a lane.';
