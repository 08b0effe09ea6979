-- Buckets that several destinations share or that last longer than a second: of a destination, a pool, a tenant. See postroom_delivery.limits.
-- tokens NULL: made for its lock only.
CREATE TABLE bucket (key text NOT NULL, window_seconds integer NOT NULL, tokens double precision, at bigint, PRIMARY KEY (key, window_seconds))
  WITH (fillfactor = 50);

-- The pace of a destination that throttles: what part of its limits it had at factor_at.
ALTER TABLE destination ADD COLUMN factor double precision NOT NULL DEFAULT 1;
ALTER TABLE destination ADD COLUMN factor_at bigint NOT NULL DEFAULT 0;
CREATE INDEX slot_pool ON slot (pool);
