-- Analytics: counts by hour and minute (see rollup.py), and the number of the last event that is counted. Times and grains are milliseconds.
ALTER TABLE message ADD COLUMN campaign TEXT NOT NULL DEFAULT '';
CREATE TABLE rollup (
  grain INTEGER NOT NULL, start INTEGER NOT NULL,
  tenant TEXT NOT NULL, domain TEXT NOT NULL, credential TEXT NOT NULL, campaign TEXT NOT NULL, destination TEXT NOT NULL, pool TEXT NOT NULL,
  measure TEXT NOT NULL, class TEXT NOT NULL,
  bucket INTEGER NOT NULL,                 -- -1: a count; else a latency's bucket
  count INTEGER NOT NULL,
  PRIMARY KEY (grain, start, tenant, domain, credential, campaign, destination, pool, measure, class, bucket)
) WITHOUT ROWID;
CREATE TABLE rollup_cursor (number INTEGER NOT NULL);
INSERT INTO rollup_cursor (number) VALUES (0);
