-- Buckets that several destinations share or that last longer than a second: of a destination, a pool, a tenant. See postroom_delivery.limits.
CREATE TABLE bucket (key TEXT NOT NULL, window_seconds INTEGER NOT NULL, tokens REAL NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (key, window_seconds));

-- The pace of a destination that throttles: what part of its limits it had at factor_at.
ALTER TABLE destination ADD COLUMN factor REAL NOT NULL DEFAULT 1;
ALTER TABLE destination ADD COLUMN factor_at INTEGER NOT NULL DEFAULT 0;
CREATE INDEX slot_pool ON slot (pool);
