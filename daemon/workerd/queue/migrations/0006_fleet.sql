-- Orders to nodes, and nodes that are forgotten.

-- part: node_order: what a node is to do, read with its heartbeat; void when the node dies
CREATE TABLE workerd.node_order (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    node bigint NOT NULL REFERENCES workerd.node ON DELETE CASCADE,
    verb text NOT NULL CHECK (verb IN ('scale', 'drain')),
    arguments jsonb NOT NULL CHECK (jsonb_typeof(arguments) = 'object'),
    ordered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    done_at timestamptz,                -- when the node carried it out or refused to
    result jsonb,
    error text,                         -- why the node refused
    CONSTRAINT node_order_end CHECK (CASE WHEN done_at IS NULL THEN result IS NULL AND error IS NULL ELSE (result IS NULL) <> (error IS NULL) END)
);
CREATE INDEX node_order_node ON workerd.node_order (node);

-- part: node: a forgotten one is listed no more; its row stays while the history may name it
ALTER TABLE workerd.node
    ADD COLUMN forgotten_at timestamptz,
    ADD CONSTRAINT node_forgotten CHECK (dead_at IS NOT NULL OR forgotten_at IS NULL) NOT VALID;

-- part outside of a transaction: node: the rows that are there fit as well
ALTER TABLE workerd.node VALIDATE CONSTRAINT node_forgotten;
