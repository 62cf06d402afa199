-- The first layout. Times are Unix seconds, ids are UUIDs in text form.

CREATE TABLE account (
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    id         TEXT NOT NULL,
    slug       TEXT NOT NULL,
    ingest_key TEXT NOT NULL
) STRICT;

CREATE TABLE network (
    one           INTEGER PRIMARY KEY CHECK (one = 1),
    search_domain TEXT
) STRICT;

CREATE TABLE resolvers (
    kind     TEXT NOT NULL CHECK (kind IN ('do53', 'doh')),
    position INTEGER NOT NULL,
    server   TEXT NOT NULL,
    PRIMARY KEY (kind, position)
) STRICT;

CREATE TABLE sites (
    id   TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE actors (
    id   TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE actor_groups (
    actor_id TEXT NOT NULL REFERENCES actors ON DELETE CASCADE,
    name     TEXT NOT NULL,
    PRIMARY KEY (actor_id, name)
) STRICT;

CREATE TABLE resources (
    id       TEXT PRIMARY KEY,
    name     TEXT NOT NULL UNIQUE,
    address  TEXT NOT NULL,
    ip_stack TEXT CHECK (ip_stack IN ('dual', 'ipv4_only', 'ipv6_only'))
) STRICT;

CREATE TABLE resource_sites (
    resource_id TEXT NOT NULL REFERENCES resources ON DELETE CASCADE,
    position    INTEGER NOT NULL,
    site_id     TEXT NOT NULL REFERENCES sites ON DELETE RESTRICT,
    PRIMARY KEY (resource_id, position)
) STRICT;

CREATE TABLE resource_filters (
    resource_id TEXT NOT NULL REFERENCES resources ON DELETE CASCADE,
    position    INTEGER NOT NULL,
    filter      TEXT NOT NULL,
    PRIMARY KEY (resource_id, position)
) STRICT;

CREATE TABLE policies (
    id          TEXT PRIMARY KEY,
    group_name  TEXT NOT NULL,
    resource_id TEXT NOT NULL REFERENCES resources ON DELETE CASCADE,
    UNIQUE (group_name, resource_id)
) STRICT;

-- A token with an actor opens the client socket, one with a site the gateway socket, one with neither the relay socket.
CREATE TABLE tokens (
    id         TEXT PRIMARY KEY,
    actor_id   TEXT REFERENCES actors ON DELETE CASCADE,
    site_id    TEXT REFERENCES sites ON DELETE CASCADE,
    hash       BLOB NOT NULL CHECK (length(hash) = 32),
    salt       BLOB NOT NULL CHECK (length(salt) = 16),
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER,
    CHECK (actor_id IS NULL OR site_id IS NULL)
) STRICT;

CREATE TABLE clients (
    id          TEXT PRIMARY KEY,
    actor_id    TEXT NOT NULL REFERENCES actors ON DELETE CASCADE,
    external_id TEXT NOT NULL,
    name        TEXT NOT NULL,
    ipv4        TEXT NOT NULL UNIQUE,
    ipv6        TEXT NOT NULL UNIQUE,
    psk_base    BLOB NOT NULL CHECK (length(psk_base) = 32),
    UNIQUE (actor_id, external_id)
) STRICT;

CREATE TABLE gateways (
    id          TEXT PRIMARY KEY,
    site_id     TEXT NOT NULL REFERENCES sites ON DELETE CASCADE,
    external_id TEXT NOT NULL,
    name        TEXT NOT NULL,
    ipv4        TEXT NOT NULL UNIQUE,
    ipv6        TEXT NOT NULL UNIQUE,
    psk_base    BLOB NOT NULL CHECK (length(psk_base) = 32),
    UNIQUE (site_id, external_id)
) STRICT;

CREATE TABLE grants (
    client_id   TEXT NOT NULL REFERENCES clients ON DELETE CASCADE,
    resource_id TEXT NOT NULL REFERENCES resources ON DELETE CASCADE,
    gateway_id  TEXT NOT NULL REFERENCES gateways ON DELETE CASCADE,
    id          TEXT NOT NULL,
    policy_id   TEXT NOT NULL REFERENCES policies ON DELETE CASCADE,
    token_id    TEXT NOT NULL REFERENCES tokens ON DELETE CASCADE,
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER,
    PRIMARY KEY (client_id, resource_id, gateway_id)
) STRICT;

CREATE INDEX resource_sites_by_site ON resource_sites (site_id);
CREATE INDEX policies_by_resource ON policies (resource_id);
CREATE INDEX tokens_by_actor ON tokens (actor_id);
CREATE INDEX tokens_by_site ON tokens (site_id);
CREATE INDEX grants_by_resource ON grants (resource_id);
CREATE INDEX grants_by_gateway ON grants (gateway_id);
CREATE INDEX grants_by_policy ON grants (policy_id);
CREATE INDEX grants_by_token ON grants (token_id);
