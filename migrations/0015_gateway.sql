-- What the gateway has to remember beyond one process, so that any replica answers as any other.

-- Requests that carried an Idempotency-Key: their records without a time of their own get this one, so that sending
-- the request again, to whichever replica, makes the same records. Forgotten after 24 hours.
CREATE TABLE watchbook.idempotency_keys (
    key      bytea PRIMARY KEY,             -- a digest of caller, organization, kind and the key that was sent
    body     bytea NOT NULL,                -- a digest of the body: another one under the same key is a mistake
    first_at timestamptz NOT NULL
);
CREATE INDEX idempotency_keys_first ON watchbook.idempotency_keys (first_at);

-- What cursors are signed with, by name. Made once, by whoever needs it first; losing it only ends pages under way.
CREATE TABLE watchbook.gateway_keys (
    name       text PRIMARY KEY,
    key        bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
