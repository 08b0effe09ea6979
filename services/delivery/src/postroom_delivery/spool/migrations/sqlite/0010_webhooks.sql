-- Webhooks: how far each target has been told, and how it goes. duty: what exactly one process does, for as long as it says so. Milliseconds.
CREATE TABLE duty (name TEXT PRIMARY KEY, holder TEXT NOT NULL, until INTEGER NOT NULL);
CREATE TABLE hook (
  name TEXT PRIMARY KEY,
  cursor INTEGER NOT NULL,                 -- the number of the last event that the target has, or does not want
  upto INTEGER NOT NULL DEFAULT 0,         -- the last event of a request that has failed: it is repeated as it was; 0: none
  sent INTEGER NOT NULL DEFAULT 0, lost INTEGER NOT NULL DEFAULT 0,
  failures INTEGER NOT NULL DEFAULT 0, failing_since INTEGER NOT NULL DEFAULT 0, next_at INTEGER NOT NULL DEFAULT 0,
  last_at INTEGER NOT NULL DEFAULT 0, last_text TEXT NOT NULL DEFAULT ''
);
