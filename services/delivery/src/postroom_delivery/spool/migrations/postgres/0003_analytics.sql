-- Analytics: counts by hour and minute (see rollup.py), and the number of the last event that is counted. Times and grains are milliseconds.
-- Old code goes on: it accepts messages without a campaign and counts nothing.
ALTER TABLE message ADD COLUMN campaign text NOT NULL DEFAULT '';
CREATE TABLE rollup (
  grain bigint NOT NULL, start bigint NOT NULL,
  tenant text NOT NULL, domain text NOT NULL, credential text NOT NULL, campaign text NOT NULL, destination text NOT NULL, pool text NOT NULL,
  measure text NOT NULL, class text NOT NULL,
  bucket integer NOT NULL,                 -- -1: a count; else a latency's bucket
  count bigint NOT NULL,
  PRIMARY KEY (grain, start, tenant, domain, credential, campaign, destination, pool, measure, class, bucket)
) WITH (fillfactor = 70);
CREATE TABLE rollup_cursor (number bigint NOT NULL);
INSERT INTO rollup_cursor (number) VALUES (0);
