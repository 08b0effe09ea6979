-- How many recipients are in which state, open ones by destination, final ones under '': what people ask for must not count a million rows.
-- There is one writer, so the counts change in its transactions; PostgreSQL appends differences instead.
CREATE TABLE tally (pool TEXT NOT NULL, destination TEXT NOT NULL, state TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (pool, destination, state)) WITHOUT ROWID;
INSERT INTO tally SELECT pool, CASE WHEN state IN ('scheduled', 'leased', 'held') THEN destination ELSE '' END, state, count(*) FROM recipient GROUP BY 1, 2, 3;
CREATE TRIGGER recipient_inserted AFTER INSERT ON recipient BEGIN
  INSERT INTO tally VALUES (new.pool, new.destination, new.state, 1) ON CONFLICT DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER recipient_updated AFTER UPDATE OF state, destination ON recipient WHEN old.state <> new.state OR old.destination <> new.destination BEGIN
  UPDATE tally SET n = n - 1 WHERE pool = old.pool AND state = old.state
    AND destination = CASE WHEN old.state IN ('scheduled', 'leased', 'held') THEN old.destination ELSE '' END;
  INSERT INTO tally VALUES (new.pool, CASE WHEN new.state IN ('scheduled', 'leased', 'held') THEN new.destination ELSE '' END, new.state, 1)
    ON CONFLICT DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER recipient_deleted AFTER DELETE ON recipient BEGIN
  UPDATE tally SET n = n - 1 WHERE pool = old.pool AND state = old.state
    AND destination = CASE WHEN old.state IN ('scheduled', 'leased', 'held') THEN old.destination ELSE '' END;
END;

-- Messages whose body is on its way in several chunks: what a crash leaves of them is found without a look at every body.
CREATE TABLE staging (message TEXT PRIMARY KEY);
INSERT INTO staging SELECT DISTINCT message FROM body WHERE NOT EXISTS (SELECT 1 FROM message WHERE id = body.message);

-- What people select from a long queue: open recipients, and those that came to no good end, each found without a look at the rows of the others.
-- The columns are those that filters ask for, so that even a filter that nothing fits is answered from the index alone.
CREATE INDEX recipient_open ON recipient (message, domain, destination, tenant, pool, last_class, state) WHERE state IN ('scheduled', 'leased', 'held');
CREATE INDEX recipient_failed ON recipient (message) WHERE state IN ('bounced', 'expired', 'deleted');
CREATE INDEX message_open ON message (id, received_at, reverse_path) WHERE open_recipients > 0;
