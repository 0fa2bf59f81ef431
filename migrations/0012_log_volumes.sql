-- How many lines are stored of what is bounded by volume, and how many bytes, by day of `created_at` in UTC: with it
-- the limit is kept without reading the tables. A batch adds one row a day, with all groups of that day in it; what
-- removes rows adds one that takes away. Always exactly the rows: each is written in the transaction that changes them.
CREATE TABLE watchbook.log_volumes (
    kind       text NOT NULL,
    day        date NOT NULL,
    written_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Organizations and containers.
    dictionary text[] NOT NULL,
    -- The groups, one behind the other, in network byte order: the places of organization and container in the
    -- dictionary, from 1, 0 for NULL, in 4 bytes each; lines and bytes, either of which may be negative, in 8 bytes each.
    groups     bytea NOT NULL
);
-- Written once and read once or twice: compressing them would cost more than it saves.
ALTER TABLE watchbook.log_volumes
    ALTER dictionary SET STORAGE EXTERNAL,
    ALTER groups SET STORAGE EXTERNAL;
-- What is folded, and the days that are removed.
CREATE INDEX log_volumes_day ON watchbook.log_volumes (kind, day);

-- As before, with the parentheses without which numbers from 65,536 on came out wrong: `<<` and `|` bind equally.
CREATE OR REPLACE FUNCTION watchbook.rollup_number(groups bytea, place integer) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (get_byte(groups, place)::bigint << 24) | (get_byte(groups, place + 1)::bigint << 16)
         | (get_byte(groups, place + 2)::bigint << 8) | get_byte(groups, place + 3)::bigint;

-- The same, a row for each group: for people and for questions that are asked rarely. The bytes and the dictionary are
-- fetched once a row: once a group would take as long as there are groups, squared.
CREATE VIEW watchbook.log_volume_groups AS
SELECT kind, day, organization_id, container_id, lines, bytes
  FROM watchbook.log_volumes,
       LATERAL (SELECT organization.word AS organization_id, container.word AS container_id, lines, bytes
                  FROM (SELECT watchbook.rollup_number(fetched, start) AS organization_place,
                               watchbook.rollup_number(fetched, start + 4) AS container_place,
                               (watchbook.rollup_number(fetched, start + 8) << 32) | watchbook.rollup_number(fetched, start + 12) AS lines,
                               (watchbook.rollup_number(fetched, start + 16) << 32) | watchbook.rollup_number(fetched, start + 20) AS bytes
                          FROM (SELECT groups || '' AS fetched OFFSET 0) AS whole,
                               generate_series(0, length(fetched) - 24, 24) AS start) AS numbers
                  JOIN unnest(dictionary) WITH ORDINALITY AS container (word, place) ON container.place = container_place
                  LEFT JOIN unnest(dictionary) WITH ORDINALITY AS organization (word, place) ON organization.place = organization_place
               ) AS decoded;

-- What is stored already. At most 10,000 groups a row, because a row has an end.
INSERT INTO watchbook.log_volumes (kind, day, dictionary, groups)
WITH counted AS (
    SELECT (created_at AT TIME ZONE 'UTC')::date AS day, organization_id, container_id,
           count(*) AS lines, sum(octet_length(message)) AS bytes
      FROM watchbook.container_logs
     GROUP BY 1, 2, 3
), numbered AS (
    SELECT *, row_number() OVER (PARTITION BY day) - 1 AS number FROM counted
), placed AS (
    SELECT *, number / 10000 AS part, (number % 10000 * 2 + 1)::integer AS first_place FROM numbered
)
SELECT 'logs', day, array_agg(word ORDER BY place), string_agg(volume, '' ORDER BY place)
  FROM placed,
       LATERAL (VALUES
           (first_place, container_id,
            int4send(CASE WHEN organization_id IS NULL THEN 0 ELSE first_place + 1 END) || int4send(first_place)
                || int8send(lines) || int8send(bytes)),
           (first_place + 1, coalesce(organization_id, ''), '')) AS entry (place, word, volume)
 GROUP BY day, part;
