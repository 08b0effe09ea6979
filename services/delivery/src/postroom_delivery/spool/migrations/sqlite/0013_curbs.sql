-- Outgoing spam control: senders that are alerted about, slowed down or paused (see postroom_delivery.reputation). Times are milliseconds.
CREATE TABLE curb (
  name TEXT PRIMARY KEY, level TEXT NOT NULL, signal TEXT NOT NULL, text TEXT NOT NULL,
  since INTEGER NOT NULL, until INTEGER NOT NULL, pace INTEGER NOT NULL, spared_until INTEGER NOT NULL
);
