-- The first schema. Times are Unix milliseconds.
CREATE TABLE message (
  id TEXT PRIMARY KEY,
  tenant TEXT NOT NULL, pool TEXT NOT NULL, domain TEXT NOT NULL, credential TEXT NOT NULL,
  reverse_path TEXT NOT NULL,              -- '' is the null reverse-path
  body_size INTEGER NOT NULL, size INTEGER NOT NULL, eight_bit INTEGER NOT NULL,
  ret TEXT NOT NULL, envid TEXT NOT NULL, client_address TEXT NOT NULL, traceparent TEXT NOT NULL,
  received_at INTEGER NOT NULL, expires_at INTEGER NOT NULL,
  open_recipients INTEGER NOT NULL,        -- 0: final, body and headers are gone
  headers BLOB NOT NULL                    -- last, so that scans do not read it
);
CREATE INDEX message_final ON message (received_at) WHERE open_recipients = 0;

-- Bodies by chunks, shared by all recipients. Rows without a message are staged ones.
CREATE TABLE body (message TEXT NOT NULL, sequence INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (message, sequence));

CREATE TABLE recipient (
  id INTEGER PRIMARY KEY,
  message TEXT NOT NULL, address TEXT NOT NULL, domain TEXT NOT NULL,
  pool TEXT NOT NULL, destination TEXT NOT NULL, tenant TEXT NOT NULL,
  state TEXT NOT NULL, due_at INTEGER NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,
  fence INTEGER NOT NULL DEFAULT 0, holder TEXT, lease_until INTEGER,
  in_doubt INTEGER NOT NULL DEFAULT 0,     -- 1 from before the final dot until the reply is recorded
  ambiguous INTEGER NOT NULL DEFAULT 0,    -- attempts that ended in doubt
  last_reply TEXT NOT NULL DEFAULT '', last_class TEXT NOT NULL DEFAULT '',
  notify TEXT NOT NULL, orcpt TEXT NOT NULL
);
CREATE INDEX recipient_message ON recipient (message);
CREATE INDEX recipient_due ON recipient (pool, destination, tenant, due_at) WHERE state = 'scheduled';
CREATE INDEX recipient_leased ON recipient (holder) WHERE state = 'leased';
CREATE INDEX recipient_ambiguous ON recipient (id) WHERE ambiguous > 0;

-- One row per destination with open work or a memory of limits. next_at: when a claim may look here again; NULL when nothing is scheduled.
CREATE TABLE destination (
  pool TEXT NOT NULL, name TEXT NOT NULL,
  next_at INTEGER, tokens REAL, tokens_at INTEGER,
  blocked_until INTEGER NOT NULL DEFAULT 0, suspended INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (pool, name)
);
CREATE INDEX destination_next ON destination (next_at) WHERE next_at IS NOT NULL AND suspended = 0;

-- A tenant's work for a destination; tenants take turns.
CREATE TABLE lane (
  pool TEXT NOT NULL, destination TEXT NOT NULL, tenant TEXT NOT NULL,
  next_due INTEGER NOT NULL, turn_at INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (pool, destination, tenant)
);

-- Connections in use, so that a limit holds over all processes.
CREATE TABLE slot (id INTEGER PRIMARY KEY, pool TEXT NOT NULL, destination TEXT NOT NULL, holder TEXT NOT NULL, lease_until INTEGER NOT NULL);
CREATE INDEX slot_destination ON slot (pool, destination);

CREATE TABLE usage (key TEXT NOT NULL, window_seconds INTEGER NOT NULL, window INTEGER NOT NULL, messages INTEGER NOT NULL, PRIMARY KEY (key, window_seconds));

CREATE TABLE event (
  number INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, message TEXT NOT NULL, recipient TEXT NOT NULL, kind TEXT NOT NULL,
  code INTEGER NOT NULL, enhanced TEXT NOT NULL, text TEXT NOT NULL, class TEXT NOT NULL, remote TEXT NOT NULL, tls TEXT NOT NULL, attempt INTEGER NOT NULL
);
CREATE INDEX event_message ON event (message);

-- Bounces of bounces: what could be told to nobody.
CREATE TABLE dead_letter (message TEXT NOT NULL, at INTEGER NOT NULL, reason TEXT NOT NULL, headers BLOB NOT NULL, PRIMARY KEY (message, at));
