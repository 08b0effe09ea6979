-- The first schema. Times are Unix milliseconds of the database's clock.
CREATE TABLE message (
  id text PRIMARY KEY,
  tenant text NOT NULL, pool text NOT NULL, domain text NOT NULL, credential text NOT NULL,
  reverse_path text NOT NULL,              -- '' is the null reverse-path
  body_size bigint NOT NULL, size bigint NOT NULL, eight_bit boolean NOT NULL,
  ret text NOT NULL, envid text NOT NULL, client_address text NOT NULL, traceparent text NOT NULL,
  received_at bigint NOT NULL, expires_at bigint NOT NULL,
  open_recipients integer NOT NULL,        -- 0: final, body and headers are gone
  headers bytea NOT NULL,
  smtputf8 boolean NOT NULL, require_tls boolean NOT NULL, tls_optional boolean NOT NULL, binary_mime boolean NOT NULL,
  hold_until bigint NOT NULL, deliver_by bigint NOT NULL, deliver_by_return boolean NOT NULL, priority integer NOT NULL
);
CREATE INDEX message_final ON message (received_at) WHERE open_recipients = 0;

-- Bodies by chunks, shared by all recipients. Rows without a message are staged ones; staged_at tells how long.
CREATE TABLE body (message text NOT NULL, sequence integer NOT NULL, data bytea NOT NULL, PRIMARY KEY (message, sequence));
ALTER TABLE body ALTER COLUMN data SET STORAGE EXTERNAL;  -- mail is mostly encoded already; compressing costs more than it gives
CREATE TABLE staging (message text PRIMARY KEY, since bigint NOT NULL);

CREATE TABLE recipient (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  message text NOT NULL, address text NOT NULL, domain text NOT NULL,
  pool text NOT NULL, destination text NOT NULL, tenant text NOT NULL, priority integer NOT NULL,
  state text NOT NULL, due_at bigint NOT NULL, attempts integer NOT NULL DEFAULT 0,
  fence bigint NOT NULL DEFAULT 0, holder text,
  in_doubt boolean NOT NULL DEFAULT false, -- from before the final dot until the reply is recorded
  ambiguous integer NOT NULL DEFAULT 0,    -- attempts that ended in doubt
  last_reply text NOT NULL DEFAULT '', last_class text NOT NULL DEFAULT '',
  notify text NOT NULL, orcpt text NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX recipient_message ON recipient (message);
CREATE INDEX recipient_due ON recipient (pool, destination, tenant, priority, due_at, id) WHERE state = 'scheduled';
CREATE INDEX recipient_leased ON recipient (holder) WHERE state = 'leased';
CREATE INDEX recipient_ambiguous ON recipient (id) WHERE ambiguous > 0;

-- One row per destination with open work or a memory of limits. next_at: when a claim may look here again; NULL when nothing is scheduled.
-- Only claims and the end of a connection lock these rows; work arrives by `arrival`.
CREATE TABLE destination (
  pool text NOT NULL, name text NOT NULL,
  next_at bigint, tokens double precision, tokens_at bigint,
  blocked_until bigint NOT NULL DEFAULT 0, suspended boolean NOT NULL DEFAULT false,
  PRIMARY KEY (pool, name)
) WITH (fillfactor = 50);
CREATE INDEX destination_next ON destination (next_at) WHERE next_at IS NOT NULL AND NOT suspended;

-- A tenant's work for a destination; tenants take turns. Written only by who holds the lock of the destination's row.
CREATE TABLE lane (
  pool text NOT NULL, destination text NOT NULL, tenant text NOT NULL,
  next_due bigint NOT NULL, turn_at bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (pool, destination, tenant)
) WITH (fillfactor = 50);

-- Work that was scheduled since the last claim, told without a lock on its destination; tenant '' tells that the destination itself has changed.
CREATE TABLE arrival (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  pool text NOT NULL, destination text NOT NULL, tenant text NOT NULL, due bigint NOT NULL, unblock boolean NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

-- One row per process: a renewal extends the lease of everything that it holds.
CREATE TABLE holder (name text PRIMARY KEY, lease_until bigint NOT NULL);

-- Connections in use, so that a limit holds over all processes.
CREATE TABLE slot (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, pool text NOT NULL, destination text NOT NULL, holder text NOT NULL);
CREATE INDEX slot_destination ON slot (pool, destination);
CREATE INDEX slot_holder ON slot (holder);

CREATE TABLE usage (
  key text NOT NULL, window_seconds bigint NOT NULL, window_number bigint NOT NULL, messages bigint NOT NULL, PRIMARY KEY (key, window_seconds)
) WITH (fillfactor = 50);

-- By days, so that retention drops a day instead of deleting its rows. A number begins with the number of its transaction, see postgres_read.
CREATE TABLE event (
  number bigint NOT NULL, at bigint NOT NULL, message text NOT NULL, recipient text NOT NULL, kind text NOT NULL,
  code integer NOT NULL, enhanced text NOT NULL, text text NOT NULL, class text NOT NULL, remote text NOT NULL, tls text NOT NULL, attempt integer NOT NULL,
  PRIMARY KEY (number, at)
) PARTITION BY RANGE (at);
CREATE INDEX event_message ON event (message, number);

-- Bounces of bounces: what could be told to nobody.
CREATE TABLE dead_letter (message text NOT NULL, at bigint NOT NULL, reason text NOT NULL, headers bytea NOT NULL, PRIMARY KEY (message, at));

-- How many recipients are in which state, open ones by destination, final ones under ''. Every statement that changes recipients appends the
-- difference; nobody waits for a common counter. Differences are folded into `tally` now and then.
CREATE TABLE tally (pool text NOT NULL, destination text NOT NULL, state text NOT NULL, n bigint NOT NULL, PRIMARY KEY (pool, destination, state));
CREATE TABLE tally_difference (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, pool text NOT NULL, destination text NOT NULL, state text NOT NULL, n bigint NOT NULL)
  WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

CREATE FUNCTION tally_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO tally_difference (pool, destination, state, n) SELECT pool, destination, state, count(*) FROM new_rows GROUP BY 1, 2, 3;
  ELSIF TG_OP = 'DELETE' THEN
    INSERT INTO tally_difference (pool, destination, state, n)
    SELECT pool, CASE WHEN state IN ('scheduled', 'leased', 'held') THEN destination ELSE '' END, state, -count(*) FROM old_rows GROUP BY 1, 2, 3;
  ELSE
    INSERT INTO tally_difference (pool, destination, state, n)
    SELECT pool, CASE WHEN state IN ('scheduled', 'leased', 'held') THEN destination ELSE '' END, state, sum(n) FROM
      (SELECT pool, destination, state, 1 AS n FROM new_rows UNION ALL SELECT pool, destination, state, -1 FROM old_rows) AS both_rows
    GROUP BY 1, 2, 3 HAVING sum(n) <> 0;
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER recipient_inserted AFTER INSERT ON recipient REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION tally_change();
CREATE TRIGGER recipient_deleted AFTER DELETE ON recipient REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION tally_change();
CREATE TRIGGER recipient_updated AFTER UPDATE ON recipient REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION tally_change();
