-- Policies have conditions, so that several may be about the same group and resource. A constraint can't be dropped, so the
-- table is made anew; references aren't enforced meanwhile.

CREATE TABLE policies_after (
    id          TEXT PRIMARY KEY,
    group_name  TEXT NOT NULL,
    resource_id TEXT NOT NULL REFERENCES resources ON DELETE CASCADE,
    conditions  TEXT NOT NULL -- a JSON list
) STRICT;

INSERT INTO policies_after SELECT id, group_name, resource_id, '[]' FROM policies;

DROP TABLE policies;
ALTER TABLE policies_after RENAME TO policies;

CREATE INDEX policies_by_resource ON policies (resource_id);

-- What conditions look at.
ALTER TABLE clients ADD COLUMN verified INTEGER NOT NULL DEFAULT 0 CHECK (verified IN (0, 1));
ALTER TABLE grants ADD COLUMN remote_ip TEXT;
