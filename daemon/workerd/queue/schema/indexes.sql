-- The indexes of the tables besides those of their keys.

CREATE UNIQUE INDEX ready_id ON workerd.ready (id);
CREATE INDEX lease_last ON workerd.lease (lane, last);
-- What waits for its time alone is found by its time, what waits for its turn by its line.
CREATE INDEX scheduled_due ON workerd.scheduled (run_at) WHERE waits IS NULL;
CREATE INDEX scheduled_line ON workerd.scheduled (task, lane, line, run_at, id) WHERE waits = 'limit';
CREATE INDEX history_id ON workerd.history (id);
CREATE INDEX history_unsuccessful ON workerd.history (state, id) WHERE state <> 'succeeded';
CREATE INDEX quarantined_at ON workerd.quarantined (at);
CREATE INDEX job_log_at ON workerd.job_log USING brin (at) WITH (pages_per_range = 16, autosummarize = on);
CREATE INDEX signal_untaken ON workerd.signal (id) WHERE NOT taken;
CREATE INDEX dependency_parent ON workerd.dependency (parent);
CREATE INDEX dependency_open ON workerd.dependency (parent) WHERE ended IS NULL;
CREATE INDEX dependency_news ON workerd.dependency (child) WHERE news;
CREATE INDEX slot_task ON workerd.slot (task, line);
CREATE INDEX slot_queue ON workerd.slot (queue);
CREATE INDEX schedule_next ON workerd.schedule (next_at) WHERE paused_at IS NULL;
CREATE INDEX node_order_node ON workerd.node_order (node);
CREATE UNIQUE INDEX token_name ON workerd.token (name) WHERE revoked_at IS NULL;
