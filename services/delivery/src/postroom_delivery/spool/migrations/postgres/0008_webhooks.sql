-- Webhooks: how far each target has been told, and how it goes. duty: what exactly one process does, for as long as it says so. Milliseconds.
CREATE TABLE duty (name text PRIMARY KEY, holder text NOT NULL, until bigint NOT NULL);
CREATE TABLE hook (
  name text PRIMARY KEY,
  cursor bigint NOT NULL,                 -- the number of the last event that the target has, or does not want
  upto bigint NOT NULL DEFAULT 0,         -- the last event of a request that has failed: it is repeated as it was; 0: none
  sent bigint NOT NULL DEFAULT 0, lost bigint NOT NULL DEFAULT 0,
  failures bigint NOT NULL DEFAULT 0, failing_since bigint NOT NULL DEFAULT 0, next_at bigint NOT NULL DEFAULT 0,
  last_at bigint NOT NULL DEFAULT 0, last_text text NOT NULL DEFAULT ''
);
