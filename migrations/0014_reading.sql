-- Who reads what: questions are asked by a role that cannot log in and cannot pass by the policies below, with the
-- organizations of whoever asks in the setting `watchbook.organizations`. The owner, who writes, alerts and removes, is
-- not bound by them: COPY FROM is refused where policies apply, so they are never forced on it.

-- What makes errors the same one. NULL in rows that are older than the column; groups leave these out.
ALTER TABLE watchbook.error_logs ADD COLUMN fingerprint uuid;
-- Days that are just being taken out, which have to fit should they be put back.
DO $$
DECLARE day regclass;
BEGIN
    FOR day IN SELECT oid FROM pg_class
                WHERE relnamespace = 'watchbook'::regnamespace AND relkind = 'r' AND NOT relispartition
                  AND relname ~ '^error_logs_[0-9]{8}(_held)?$'
    LOOP
        EXECUTE format('ALTER TABLE %s ADD COLUMN IF NOT EXISTS fingerprint uuid', day);
    END LOOP;
END $$;

-- What is asked of an organization as a whole, and most who ask see one alone: its newest, its groups of errors, its days.
-- Such an index costs a writer a seventh of its speed, which these two kinds can pay. Events, metrics and lines come in
-- floods: theirs are read backwards in time, a few days at the most, or by what they are about.
CREATE INDEX error_logs_organization ON watchbook.error_logs (organization_id, created_at) WHERE organization_id IS NOT NULL;
CREATE INDEX sandbox_execution_logs_organization ON watchbook.sandbox_execution_logs (organization_id, created_at) WHERE organization_id IS NOT NULL;

-- Whose a dead letter is, by its subject; NULL for nobody's, and where the subject is none of its stream's. A stream's
-- name is as long as its prefix and kind in the subject, so the organization is found behind whatever prefix.
CREATE FUNCTION watchbook.organization_of(subject text, stream text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN upper(regexp_replace(left(subject, length(stream)) COLLATE "C", '[^A-Za-z0-9]', '_', 'g')) = stream
                     AND substr(subject, length(stream) + 1, 1) = '.'
                THEN nullif(split_part(substr(subject, length(stream) + 2), '.', 1), '_') END;

-- A row without an organization is nobody's in particular: only who may see all sees it. The settings are read once a
-- statement and not once a row, because each stands in a subquery of its own.
DO $$
DECLARE
    everything CONSTANT text := '(SELECT current_setting(''watchbook.organizations'', true)) = ''*''';
    theirs     CONSTANT text := 'ANY ((SELECT string_to_array(nullif(current_setting(''watchbook.organizations'', true), ''*''), '',''))::text[])';
    readable   record;
BEGIN
    FOR readable IN
        SELECT * FROM (VALUES
            ('watchbook.event_logs',             'organization_id = ' || theirs),
            ('watchbook.error_logs',             'organization_id = ' || theirs),
            ('watchbook.container_metrics',      'organization_id = ' || theirs),
            ('watchbook.container_metric_hours', 'organization_id = ' || theirs),
            ('watchbook.container_logs',         'organization_id = ' || theirs),
            ('control_plane.audit_logs',         'organization_id = ' || theirs),
            ('watchbook.sandbox_execution_logs', 'organization_id = ' || theirs),
            -- What has no organization is the platform's own directory, which only the platform may publish to. It
            -- says what ids mean that all organizations share, and everybody may read it: a name that must not be
            -- known elsewhere belongs under its organization.
            ('watchbook.entities',               'organization_id IS NULL OR organization_id = ' || theirs),
            ('watchbook.dead_letters',           'watchbook.organization_of(subject, stream) = ' || theirs),
            -- '_' stands for none in these and is the name of no organization.
            ('watchbook.outcome_minutes',        'organization_id <> ''_'' AND organization_id = ' || theirs),
            ('watchbook.outcome_hours',          'organization_id <> ''_'' AND organization_id = ' || theirs),
            ('watchbook.health',                 'organization_id <> ''_'' AND organization_id = ' || theirs),
            ('watchbook.alerts',                 'organization_id <> ''_'' AND organization_id = ' || theirs),
            -- As far as their alert is visible.
            ('watchbook.alert_transitions',      'EXISTS (SELECT FROM watchbook.alerts AS alert WHERE alert.id = alert_id)'),
            -- Those that are about the organization alone.
            ('watchbook.silences',               'EXISTS (SELECT FROM jsonb_array_elements_text(matchers) AS matcher
                                                           WHERE CASE WHEN matcher LIKE ''organization=%'' OR matcher LIKE ''organization_id=%''
                                                                      THEN split_part(matcher, ''='', 2) END = ' || theirs || ')'),
            ('watchbook.holds',                  'organization_id <> ''_'' AND organization_id = ' || theirs),
            -- What was removed is counted over all organizations.
            ('watchbook.retention_runs',         'false'),
            ('watchbook.retention_actions',      'false')
        ) AS tables (name, condition)
    LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', readable.name);
        EXECUTE format('CREATE POLICY readers_of_an_organization ON %s FOR SELECT USING (%s OR %s)',
                       readable.name, everything, readable.condition);
    END LOOP;
END $$;

-- A view reads with the rights of its owner unless it says otherwise.
ALTER VIEW watchbook.outcomes SET (security_invoker = true);

-- Makes the role, as far as this user may, and lets it read: the tables that have policies, and no partition of them,
-- because a right on a partition would pass by the policies. Returns what a superuser has to run, or NULL where nothing
-- is left to do. Roles belong to the whole server, and so to several databases.
CREATE FUNCTION watchbook.allow_reading() RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    may_become text := CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END;
    readable   regclass;
BEGIN
    -- Two at once would trip over each other's grants.
    PERFORM pg_advisory_xact_lock(hashtextextended('watchbook readers', 0));
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'watchbook_reader') THEN
        BEGIN
            CREATE ROLE watchbook_reader NOLOGIN;
        EXCEPTION WHEN duplicate_object OR unique_violation OR insufficient_privilege THEN
            NULL; -- another database made it meanwhile, or a superuser has to
        END;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'watchbook_reader') THEN
        IF NOT pg_has_role(current_user, 'watchbook_reader', may_become) THEN
            BEGIN
                EXECUTE format('GRANT watchbook_reader TO %I', current_user);
            EXCEPTION WHEN insufficient_privilege THEN
                NULL;
            END;
        END IF;
        FOR readable IN SELECT polrelid FROM pg_policy WHERE polname = 'readers_of_an_organization'
        LOOP
            IF NOT has_table_privilege('watchbook_reader', readable, 'SELECT') THEN
                EXECUTE format('GRANT SELECT ON %s TO watchbook_reader', readable);
            END IF;
        END LOOP;
        IF NOT has_schema_privilege('watchbook_reader', 'watchbook', 'USAGE')
            OR NOT has_schema_privilege('watchbook_reader', 'control_plane', 'USAGE') THEN
            GRANT USAGE ON SCHEMA watchbook, control_plane TO watchbook_reader;
        END IF;
        IF NOT has_table_privilege('watchbook_reader', 'watchbook.outcomes', 'SELECT') THEN
            GRANT SELECT ON watchbook.outcomes TO watchbook_reader;
        END IF;
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'watchbook_reader' AND (rolsuper OR rolbypassrls)) THEN
            RETURN 'ALTER ROLE watchbook_reader NOSUPERUSER NOBYPASSRLS';
        END IF;
        IF pg_has_role(current_user, 'watchbook_reader', may_become) THEN
            RETURN NULL;
        END IF;
        RETURN format('GRANT watchbook_reader TO %I', current_user);
    END IF;
    RETURN format('CREATE ROLE watchbook_reader NOLOGIN ROLE %I', current_user);
END $$;

DO $$
DECLARE missing text := watchbook.allow_reading();
BEGIN
    IF missing IS NOT NULL THEN
        RAISE NOTICE 'questions cannot be answered before a superuser runs: %', missing;
    END IF;
END $$;
