-- Resolvers over TLS. A check can't be changed, so the table is made anew.

ALTER TABLE resolvers RENAME TO resolvers_before;

CREATE TABLE resolvers (
    kind     TEXT NOT NULL CHECK (kind IN ('do53', 'doh', 'dot')),
    position INTEGER NOT NULL,
    server   TEXT NOT NULL,
    PRIMARY KEY (kind, position)
) STRICT;

INSERT INTO resolvers SELECT kind, position, server FROM resolvers_before;

DROP TABLE resolvers_before;
