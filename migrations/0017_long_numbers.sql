-- JSON whose numbers print long. `1e131000` takes a few bytes of a message and of a jsonb, and 131,001 digits wherever
-- Postgres prints it: 18 KB of such numbers are 262 MB of text, and what would be more than 1 GB cannot be printed at
-- all. These functions measure, replace or abbreviate such values without printing them. Each visits 4,000 levels of a
-- value at the most: Postgres stores some 12,000, and its jsonpath runs out of stack before that.

-- How many characters the numbers of a value take in print: those before the point, and the scale behind it. Taken from
-- the binary form of numeric (src/backend/utils/adt/numeric.c, numeric_send): number of digits, weight, sign and scale in
-- two bytes each, digits and weight to the base of 10,000.
CREATE FUNCTION watchbook.digits_printed(value jsonb) RETURNS bigint LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN (SELECT sum(greatest(((get_byte(sent, 2) << 8 | get_byte(sent, 3)) # 32768) - 32768 + 1, 0) * 4
                       + (get_byte(sent, 6) << 8 | get_byte(sent, 7)))
              FROM jsonb_path_query(value, 'strict $.**{0 to 4000} ? (@.type() == "number")') AS found (number),
                   LATERAL (SELECT numeric_send(number::numeric) AS sent OFFSET 0) AS binary_form);

-- Whether the numbers of a value print to more than 256 KiB: as much as a JSON column of a record may have. Nearly free
-- for what is small, because 256 bytes hold 16 numbers of 147,456 characters each at the most, and for others the same
-- many are let through unmeasured. Zeros are measured too: `0e-16000` is one. STABLE and one expression, so that it is
-- inlined into the statement.
CREATE FUNCTION watchbook.prints_long(value jsonb) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE
    RETURN CASE WHEN pg_column_size(value) <= 256 AND pg_column_compression(value) IS NULL THEN false
                WHEN jsonb_array_length(jsonb_path_query_array(value,
                         'strict $.**{0 to 4000} ? (@ < 1e-20 || @ >= 1e20) ? (@ > -1e-20 || @ <= -1e20)')) <= 16 THEN false
                ELSE watchbook.digits_printed(value) > 262144 END;

-- The value as a list shows it: itself, or an object that says why it is left out.
CREATE FUNCTION watchbook.printable(value jsonb) RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE
    RETURN CASE WHEN watchbook.prints_long(value)
                THEN '{"watchbook_omitted": "numbers in this value print to more than 256 KiB"}'::jsonb
                WHEN (pg_column_size(value) > 16384 OR pg_column_compression(value) IS NOT NULL)
                     AND jsonb_path_exists(value, 'strict $.**{4000}')
                THEN '{"watchbook_omitted": "this value is nested deeper than 4000 levels"}'::jsonb
                ELSE value END;

-- A number as text from which Postgres makes the same numeric, scale included, without the zeros that an exponent can
-- stand for. Digits of base 10,000 are written one behind the other; the exponent says where the point is.
CREATE FUNCTION watchbook.number_as_text(number numeric) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    sent      CONSTANT bytea   := numeric_send(number);
    count     CONSTANT integer := get_byte(sent, 0) << 8 | get_byte(sent, 1);
    weight    CONSTANT integer := ((get_byte(sent, 2) << 8 | get_byte(sent, 3)) # 32768) - 32768;
    scale     CONSTANT integer := get_byte(sent, 6) << 8 | get_byte(sent, 7);
    exponent  integer := (weight - count + 1) * 4;
    digits    text;
BEGIN
    IF greatest(weight + 1, 0) * 4 + scale <= 64 THEN
        RETURN number::text;
    END IF;
    IF count = 0 THEN
        RETURN '0e-' || scale;
    END IF;
    digits := (SELECT string_agg(lpad((get_byte(sent, 8 + 2 * n) << 8 | get_byte(sent, 9 + 2 * n))::text, 4, '0'), '' ORDER BY n)
                 FROM generate_series(0, count - 1) AS n);
    -- As many digits behind the point as the scale says. Of a number that is also large these are zeros without a
    -- value, each of which its producer has written out.
    IF scale > 0 AND exponent > -scale THEN
        digits := digits || repeat('0', exponent + scale);
        exponent := -scale;
    ELSIF exponent < -scale THEN
        digits := left(digits, -(-scale - exponent));
        exponent := -scale;
    END IF;
    digits := ltrim(digits, '0');
    RETURN CASE WHEN number < 0 THEN '-' ELSE '' END || digits || CASE WHEN exponent <> 0 THEN 'e' || exponent ELSE '' END;
END $$;

CREATE FUNCTION watchbook.abbreviated_part(value jsonb) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    CASE jsonb_typeof(value)
    WHEN 'object' THEN
        RETURN (SELECT '{' || coalesce(string_agg(to_json(key)::text || ': ' || watchbook.abbreviated_part(member), ', '), '') || '}'
                  FROM jsonb_each(value) AS members (key, member));
    WHEN 'array' THEN
        RETURN (SELECT '[' || coalesce(string_agg(watchbook.abbreviated_part(element), ', ' ORDER BY place), '') || ']'
                  FROM jsonb_array_elements(value) WITH ORDINALITY AS elements (element, place));
    WHEN 'number' THEN
        RETURN watchbook.number_as_text(value::numeric);
    ELSE
        RETURN value::text;
    END CASE;
END $$;

-- Whether `abbreviated` takes a value: with a stack of the usual 2 MB it goes through some 500 levels.
CREATE FUNCTION watchbook.can_be_abbreviated(value jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN NOT jsonb_path_exists(value, 'strict $.**{300}');

-- JSON from which Postgres makes the same value, with numbers as above: about as long as what was once published.
CREATE FUNCTION watchbook.abbreviated(value jsonb) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    IF NOT watchbook.can_be_abbreviated(value) THEN
        RAISE EXCEPTION 'a JSON value whose numbers print to more than 256 KiB is nested deeper than 300 levels: correct or delete its row'
            USING ERRCODE = 'program_limit_exceeded';
    END IF;
    RETURN watchbook.abbreviated_part(value);
END $$;
