-- Counts by label. A batch adds one row for each minute in which its records happened, with all groups of
-- that minute in it: ten thousand groups cost one insert, where a row a group would cost more than the records.
CREATE TABLE watchbook.rollups (
    kind       text NOT NULL,
    minute     timestamptz NOT NULL,
    -- The transaction that wrote it, by which the alert worker finds what it has not seen yet; NULL once
    -- the rows of a minute are folded into one.
    xid        xid8 DEFAULT pg_current_xact_id(),
    written_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- What the labels are called, the organization first, and what is measured.
    label_names text[] NOT NULL,
    level_names text[] NOT NULL,
    -- Each value of a label once.
    dictionary text[] NOT NULL,
    -- The groups, one behind the other, in network byte order. For each label the place of its value in the
    -- dictionary, from 1, 0 for NULL; records; those of them that failed: 4 bytes each. For each level the number
    -- of samples in 4 bytes, and their sum and peak as 8 bytes of IEEE 754 each. Bytes, because an array of as
    -- many numbers would take Postgres as long as a tenth of the records.
    groups     bytea NOT NULL
);
-- Written once and read once or twice: compressing them would cost more than it saves.
ALTER TABLE watchbook.rollups
    ALTER dictionary SET STORAGE EXTERNAL,
    ALTER groups SET STORAGE EXTERNAL;
-- The windows of a rule.
CREATE INDEX rollups_minute ON watchbook.rollups (kind, minute);
-- What is new, and what can be folded.
CREATE INDEX rollups_new ON watchbook.rollups (xid) WHERE xid IS NOT NULL;

CREATE FUNCTION watchbook.rollup_number(groups bytea, place integer) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN get_byte(groups, place)::bigint << 24 | get_byte(groups, place + 1)::bigint << 16
         | get_byte(groups, place + 2)::bigint << 8 | get_byte(groups, place + 3)::bigint;

-- The same, a row for each group: for people and for questions that are asked rarely.
CREATE VIEW watchbook.rollup_groups AS
SELECT kind,
       minute,
       (SELECT jsonb_object_agg(label_names[label],
                                dictionary[watchbook.rollup_number(groups, start + 4 * (label - 1))::integer])
          FROM generate_subscripts(label_names, 1) AS label) AS labels,
       watchbook.rollup_number(groups, start + 4 * cardinality(label_names)) AS total,
       watchbook.rollup_number(groups, start + 4 * cardinality(label_names) + 4) AS failed
  FROM watchbook.rollups,
       LATERAL (SELECT 4 * (cardinality(label_names) + 2) + 20 * cardinality(level_names) AS bytes) AS one_group,
       LATERAL generate_series(0, length(groups) - one_group.bytes, one_group.bytes) AS start;
