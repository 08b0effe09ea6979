-- Outgoing spam control: senders that are alerted about, slowed down or paused (see postroom_delivery.reputation). Times are milliseconds.
CREATE TABLE curb (
  name text PRIMARY KEY, level text NOT NULL, signal text NOT NULL, text text NOT NULL,
  since bigint NOT NULL, until bigint NOT NULL, pace bigint NOT NULL, spared_until bigint NOT NULL
);
