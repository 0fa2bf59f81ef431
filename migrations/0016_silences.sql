-- Whose a silence is: in a pattern of LIKE the underscore stands for any character, so that a label such as
-- `organizationXid` was taken for that of the organization.
ALTER POLICY readers_of_an_organization ON watchbook.silences USING (
    (SELECT current_setting('watchbook.organizations', true)) = '*'
    OR EXISTS (SELECT FROM jsonb_array_elements_text(matchers) AS matcher
                WHERE split_part(matcher, '=', 1) IN ('organization', 'organization_id')
                  AND split_part(matcher, '=', 2) = ANY ((SELECT string_to_array(nullif(current_setting('watchbook.organizations', true), '*'), ','))::text[]))
);
