CREATE OR REPLACE FUNCTION workerd.need_read_committed(a_action text) RETURNS void LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
        RAISE EXCEPTION '% needs READ COMMITTED, this transaction is %: use one of its own, or BEGIN ISOLATION LEVEL READ COMMITTED', a_action,
            upper(current_setting('transaction_isolation')) USING ERRCODE = 'invalid_transaction_state';
    END IF;
END $$;

COMMENT ON FUNCTION workerd.need_read_committed IS
    'Raises an error in a transaction of another isolation level than READ COMMITTED. Such a transaction sees the '
    'queue as it was, and would take the row of a job that was claimed since for one that waits.';
