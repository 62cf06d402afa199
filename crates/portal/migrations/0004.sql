-- Who changed what, and when. Rows are never changed, nor do they go.

CREATE TABLE audit (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    at       INTEGER NOT NULL,
    who      TEXT NOT NULL CHECK (who IN ('admin', 'peer', 'portal')),
    uid      INTEGER, -- of an admin
    what     TEXT NOT NULL,
    subject  TEXT NOT NULL,
    details  TEXT NOT NULL, -- a JSON object
    CHECK ((who = 'admin') = (uid IS NOT NULL))
) STRICT;

CREATE INDEX audit_by_time ON audit (at);

CREATE TRIGGER audit_is_never_changed BEFORE UPDATE ON audit BEGIN
    SELECT RAISE(ABORT, 'the audit only grows');
END;

CREATE TRIGGER audit_never_shrinks BEFORE DELETE ON audit BEGIN
    SELECT RAISE(ABORT, 'the audit only grows');
END;

-- INSERT OR REPLACE would get by the trigger on DELETE.
CREATE TRIGGER audit_is_never_replaced BEFORE INSERT ON audit
WHEN EXISTS (SELECT 1 FROM audit WHERE sequence = NEW.sequence) BEGIN
    SELECT RAISE(ABORT, 'the audit only grows');
END;
