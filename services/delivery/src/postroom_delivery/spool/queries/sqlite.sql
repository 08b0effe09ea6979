-- name: insert_message
-- A second accept of the same id inserts nothing.
INSERT INTO message (id, tenant, pool, domain, credential, reverse_path, body_size, size, eight_bit, ret, envid, client_address, traceparent,
  received_at, expires_at, open_recipients, headers,
  smtputf8, require_tls, tls_optional, binary_mime, hold_until, deliver_by, deliver_by_return, priority, sign, campaign)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING;

-- name: insert_body
INSERT INTO body (message, sequence, data) VALUES (?, ?, ?) ON CONFLICT (message, sequence) DO UPDATE SET data = excluded.data;

-- name: staged_size
SELECT coalesce(sum(length(data)), 0) FROM body WHERE message = ?;

-- name: delete_body
DELETE FROM body WHERE message = ?;

-- name: delete_staged_body
DELETE FROM body WHERE message = ? AND NOT EXISTS (SELECT 1 FROM message WHERE id = body.message);

-- name: staging_goes_on
INSERT INTO staging (message) VALUES (?) ON CONFLICT DO NOTHING;

-- name: staging_ends
DELETE FROM staging WHERE message = ?;

-- name: delete_duties
-- Of processes that are gone: this one has the spool alone.
DELETE FROM duty;

-- name: delete_orphans
-- Chunks whose accept never came: only safe while nobody stages, that is at the start.
DELETE FROM body WHERE message IN (SELECT message FROM staging) AND NOT EXISTS (SELECT 1 FROM message WHERE id = body.message);

-- name: no_stagings
DELETE FROM staging;

-- name: insert_recipient
INSERT INTO recipient (message, address, domain, pool, destination, tenant, priority, state, due_at, notify, orcpt) VALUES (?, ?, ?, ?, ?, ?, ?, 'scheduled', ?, ?, ?);

-- name: wake_lane
INSERT INTO lane (pool, destination, tenant, next_due) VALUES (:pool, :destination, :tenant, :due)
ON CONFLICT (pool, destination, tenant) DO UPDATE SET next_due = min(next_due, excluded.next_due);

-- name: wake_destination
-- Never earlier than a block that is in force; not at all for a suspended tenant.
INSERT INTO destination (pool, name, next_at)
VALUES (:pool, :destination, iif(EXISTS (SELECT 1 FROM suspended_tenant WHERE tenant = :tenant), NULL, :due))
ON CONFLICT (pool, name) DO UPDATE SET
  next_at = iif(excluded.next_at IS NULL, next_at, max(blocked_until, min(coalesce(next_at, excluded.next_at), excluded.next_at)));

-- name: read_usage
SELECT window, messages FROM usage WHERE key = ? AND window_seconds = ?;

-- name: write_usage
INSERT INTO usage (key, window_seconds, window, messages) VALUES (?, ?, ?, ?)
ON CONFLICT (key, window_seconds) DO UPDATE SET window = excluded.window, messages = excluded.messages;

-- name: insert_event
INSERT INTO event (at, message, recipient, kind, code, enhanced, text, class, remote, tls, attempt) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: due_destinations
SELECT pool, name, tokens, tokens_at, factor, factor_at FROM destination WHERE next_at <= ? AND suspended = 0 ORDER BY next_at LIMIT ?;

-- name: idle_destination
-- A destination whose connection waits for work: its slot is taken, so next_at says when another slot is free, not when there is work.
SELECT pool, name, tokens, tokens_at, factor, factor_at FROM destination WHERE pool = :pool AND name = :destination AND suspended = 0 AND blocked_until <= :now
  AND EXISTS (SELECT 1 FROM lane WHERE lane.pool = :pool AND lane.destination = :destination AND next_due <= :now
    AND NOT EXISTS (SELECT 1 FROM suspended_tenant s WHERE s.tenant = lane.tenant));

-- name: next_at
SELECT min(next_at) FROM destination WHERE next_at IS NOT NULL AND suspended = 0;

-- name: slots
SELECT count(*), min(lease_until) FROM slot WHERE pool = ? AND destination = ?;

-- name: slots_of_pool
SELECT count(*), min(lease_until) FROM slot WHERE pool = ?;

-- name: bucket
SELECT tokens, at FROM bucket WHERE key = ? AND window_seconds = ?;

-- name: write_bucket
INSERT INTO bucket (key, window_seconds, tokens, at) VALUES (?, ?, ?, ?)
ON CONFLICT (key, window_seconds) DO UPDATE SET tokens = excluded.tokens, at = excluded.at;

-- name: lane_waits
UPDATE lane SET next_due = ? WHERE pool = ? AND destination = ? AND tenant = ?;

-- name: pace
SELECT factor, factor_at FROM destination WHERE pool = ? AND name = ?;

-- name: write_pace
UPDATE destination SET factor = ?, factor_at = ? WHERE pool = ? AND name = ?;

-- name: due_lanes
SELECT tenant FROM lane WHERE pool = ? AND destination = ? AND next_due <= ?
  AND NOT EXISTS (SELECT 1 FROM suspended_tenant s WHERE s.tenant = lane.tenant) ORDER BY turn_at LIMIT ?;

-- name: lane_priorities
-- The priorities that a lane has, highest first; one look into the index for each.
WITH RECURSIVE found (priority) AS (
  SELECT max(priority) FROM recipient WHERE pool = ?1 AND destination = ?2 AND tenant = ?3 AND state = 'scheduled'
  UNION ALL
  SELECT (SELECT max(r.priority) FROM recipient r WHERE r.pool = ?1 AND r.destination = ?2 AND r.tenant = ?3 AND r.state = 'scheduled' AND r.priority < found.priority)
  FROM found WHERE found.priority IS NOT NULL
) SELECT priority FROM found WHERE priority IS NOT NULL;

-- name: due_recipients
SELECT id, message, address, attempts, fence, notify, orcpt, delay_told FROM recipient
WHERE pool = ? AND destination = ? AND tenant = ? AND priority = ? AND state = 'scheduled' AND due_at <= ? ORDER BY due_at, id LIMIT ?;

-- name: lease_recipient
UPDATE recipient SET state = 'leased', fence = fence + 1, holder = ?, lease_until = ? WHERE id = ?;

-- name: lane_turn
UPDATE lane SET turn_at = ?, next_due = ? WHERE pool = ? AND destination = ? AND tenant = ?;

-- name: first_due
SELECT min(due_at) FROM recipient WHERE pool = ? AND destination = ? AND tenant = ? AND priority = ? AND state = 'scheduled';

-- name: lane_next_due
SELECT min(next_due) FROM lane WHERE pool = ? AND destination = ? AND NOT EXISTS (SELECT 1 FROM suspended_tenant s WHERE s.tenant = lane.tenant);

-- name: delete_empty_lanes
DELETE FROM lane WHERE pool = ? AND destination = ? AND next_due = 9223372036854775807;

-- name: update_destination
UPDATE destination SET next_at = ?, tokens = ?, tokens_at = ? WHERE pool = ? AND name = ?;

-- name: insert_slot
INSERT INTO slot (pool, destination, holder, lease_until) VALUES (?, ?, ?, ?);

-- name: claimed_message
SELECT id, tenant, domain, reverse_path, headers, body_size, eight_bit, received_at, expires_at, ret, envid, traceparent, sign,
  smtputf8, require_tls, tls_optional, binary_mime, hold_until, deliver_by, deliver_by_return, priority FROM message WHERE id = ?;

-- name: domain_of_message
SELECT domain FROM message WHERE id = ?;

-- name: read_body
SELECT data FROM body WHERE message = ? AND sequence >= ? ORDER BY sequence LIMIT ?;

-- name: doubt
UPDATE recipient SET in_doubt = 1 WHERE id = ? AND holder = ? AND fence = ? AND state = 'leased';

-- name: settle
UPDATE recipient SET state = ?, due_at = ?, attempts = attempts + ?, last_reply = coalesce(?, last_reply), last_class = coalesce(?, last_class),
  destination = coalesce(?, destination), in_doubt = 0, ambiguous = ambiguous + ?, delay_told = max(delay_told, ?), holder = NULL,
  lease_until = NULL
WHERE id = ? AND holder IS ? AND fence = ? AND state = ?
RETURNING message, address, pool, destination, tenant, attempts;

-- name: close_recipients
UPDATE message SET open_recipients = open_recipients - ? WHERE id = ? RETURNING open_recipients;

-- name: empty_message
UPDATE message SET headers = x'' WHERE id = ?;

-- name: delete_slot
DELETE FROM slot WHERE id = ?;

-- name: block_destination
-- Blocks with `until`, and lets the destination be looked at again: its lanes say when there is work. Work that has been due for long does not bring it
-- before others that wait: it keeps its place in the line, or goes to the end.
UPDATE destination SET blocked_until = max(blocked_until, :until),
  next_at = (SELECT max(blocked_until, :until, min(next_due), min(coalesce(next_at, :now), :now)) FROM lane
    WHERE lane.pool = destination.pool AND lane.destination = destination.name AND next_due < 9223372036854775807
    AND NOT EXISTS (SELECT 1 FROM suspended_tenant s WHERE s.tenant = lane.tenant))
WHERE pool = :pool AND name = :destination;

-- name: unblock_destination
UPDATE destination SET blocked_until = 0 WHERE pool = ? AND name = ?;

-- name: renew_recipients
UPDATE recipient SET lease_until = ? WHERE holder = ? AND state = 'leased';

-- name: renew_slots
UPDATE slot SET lease_until = ? WHERE holder = ?;

-- name: expired_recipients
SELECT id, message, address, pool, destination, tenant, attempts, in_doubt FROM recipient INDEXED BY recipient_leased WHERE state = 'leased' AND holder IS NOT NULL AND lease_until < ?;

-- name: held_claim
SELECT id, message, address, pool, destination, tenant, attempts, in_doubt FROM recipient WHERE id = ? AND holder = ? AND fence = ? AND state = 'leased';

-- name: take_back
UPDATE recipient SET state = 'scheduled', due_at = ?, fence = fence + 1, holder = NULL, lease_until = NULL, in_doubt = 0, ambiguous = ambiguous + in_doubt,
  attempts = attempts + in_doubt WHERE id = ?;

-- name: latest_time
SELECT value FROM memory WHERE kind = 'clock' AND name = 'latest';

-- name: set_latest_time
INSERT INTO memory (kind, name, value, until) VALUES ('clock', 'latest', ?, 9223372036854775807) ON CONFLICT (kind, name) DO UPDATE SET value = excluded.value;

-- name: back_recipients
-- By :back milliseconds, and never before what the sender asked for.
UPDATE recipient SET due_at = max(due_at - :back, (SELECT hold_until FROM message WHERE id = recipient.message)) WHERE state = 'scheduled' AND due_at > :now;

-- name: back_leases
UPDATE recipient SET lease_until = min(lease_until, :lease) WHERE state = 'leased' AND lease_until > :lease;

-- name: back_slots
UPDATE slot SET lease_until = min(lease_until, :lease) WHERE lease_until > :lease;

-- name: back_lanes
UPDATE lane SET next_due = max(:now, next_due - :back) WHERE next_due > :now AND next_due < 9223372036854775807;

-- name: back_destinations
UPDATE destination SET next_at = CASE WHEN next_at > :now THEN max(:now, next_at - :back) ELSE next_at END,
  blocked_until = CASE WHEN blocked_until > :now THEN max(:now, blocked_until - :back) ELSE blocked_until END,
  tokens_at = min(tokens_at, :now), factor_at = min(factor_at, :now);

-- name: back_buckets
UPDATE bucket SET at = :now WHERE at > :now;

-- name: expired_slots
SELECT id, pool, destination FROM slot WHERE lease_until < ?;

-- name: message_row
SELECT id, reverse_path, pool, tenant, domain, credential, client_address, size, received_at, expires_at, headers, ret, envid,
  smtputf8, require_tls, tls_optional, binary_mime, hold_until, deliver_by, deliver_by_return, priority FROM message WHERE id = ?;

-- name: recipient_rows
SELECT id, address, state, due_at, attempts, last_reply, last_class, ambiguous, notify, orcpt, destination FROM recipient WHERE message = ? ORDER BY id LIMIT 1000;

-- name: events_of_message
SELECT number, at, message, recipient, kind, code, enhanced, text, class, remote, tls, attempt FROM event WHERE message = ? AND number > ? ORDER BY number LIMIT ?;

-- name: events
SELECT number, at, message, recipient, kind, code, enhanced, text, class, remote, tls, attempt FROM event WHERE number > ? ORDER BY number LIMIT ?;

-- name: retry
UPDATE recipient SET due_at = ? WHERE id = ? AND state = 'scheduled' RETURNING pool, destination, tenant, message, address, attempts;

-- name: hold
UPDATE recipient SET state = 'held' WHERE id = ? AND state = 'scheduled' RETURNING pool, destination, tenant, message, address, attempts;

-- name: release
UPDATE recipient SET state = 'scheduled', due_at = ? WHERE id = ? AND state = 'held' RETURNING pool, destination, tenant, message, address, attempts;

-- name: suspend
INSERT INTO destination (pool, name, suspended) VALUES (:pool, :destination, :suspended) ON CONFLICT (pool, name) DO UPDATE SET suspended = excluded.suspended;

-- name: suspend_tenant
INSERT INTO suspended_tenant (tenant) VALUES (?) ON CONFLICT (tenant) DO NOTHING;

-- name: resume_tenant
DELETE FROM suspended_tenant WHERE tenant = ?;

-- name: wake_tenant
INSERT INTO destination (pool, name, next_at) SELECT pool, destination, next_due FROM lane WHERE tenant = ? AND next_due < 9223372036854775807
ON CONFLICT (pool, name) DO UPDATE SET next_at = max(blocked_until, min(coalesce(next_at, excluded.next_at), excluded.next_at));

-- name: suspended_tenants
SELECT tenant FROM suspended_tenant ORDER BY tenant LIMIT 1000;

-- name: stats_states
SELECT state, sum(n) FROM tally GROUP BY state HAVING sum(n) > 0;

-- name: stats_due
-- Counted up to a bound: a million due messages must not be counted one by one. The oldest is what the lanes say.
SELECT (SELECT count(*) FROM (SELECT 1 FROM lane CROSS JOIN recipient r ON r.pool = lane.pool AND r.destination = lane.destination AND r.tenant = lane.tenant
    WHERE lane.next_due <= :now AND r.state = 'scheduled' AND r.due_at <= :now LIMIT :most)),
  coalesce((SELECT min(next_due) FROM lane WHERE next_due <= :now), 0);

-- name: backlog_destinations
SELECT pool, name, tokens, tokens_at, factor, factor_at, next_at, (SELECT count(*) FROM slot WHERE slot.pool = d.pool AND slot.destination = d.name)
FROM destination d WHERE next_at <= ? AND suspended = 0 ORDER BY next_at LIMIT ?;

-- name: backlog_lanes
SELECT tenant, max(next_due, turn_at) FROM lane WHERE pool = ? AND destination = ? AND next_due <= ?
  AND NOT EXISTS (SELECT 1 FROM suspended_tenant s WHERE s.tenant = lane.tenant) ORDER BY turn_at;

-- name: backlog_lane
SELECT count(*) FROM (SELECT 1 FROM recipient WHERE pool = ? AND destination = ? AND tenant = ? AND priority = ? AND state = 'scheduled' AND due_at <= ? LIMIT ?);

-- name: backlog_connections
SELECT pool, count(*) FROM slot GROUP BY pool;

-- name: stats_ambiguous
SELECT count(*) FROM recipient INDEXED BY recipient_ambiguous WHERE ambiguous > 0;

-- name: stats_destinations
SELECT d.pool, d.name, coalesce(t.n, 0) AS scheduled,
  (SELECT count(*) FROM slot s WHERE s.pool = d.pool AND s.destination = d.name) AS connections, d.suspended, coalesce(d.next_at, 0), d.factor, d.factor_at
FROM destination d LEFT JOIN tally t ON t.pool = d.pool AND t.destination = d.name AND t.state = 'scheduled'
WHERE d.next_at IS NOT NULL OR d.suspended = 1 OR d.factor < 1 OR EXISTS (SELECT 1 FROM slot s WHERE s.pool = d.pool AND s.destination = d.name)
ORDER BY scheduled DESC, d.name LIMIT 100;

-- name: delete_empty_tally
DELETE FROM tally WHERE n = 0;

-- name: final_messages
SELECT id FROM message WHERE open_recipients = 0 AND received_at < ? ORDER BY received_at LIMIT ?;

-- name: delete_message
DELETE FROM message WHERE id = ?;

-- name: delete_recipients
DELETE FROM recipient WHERE message = ?;

-- name: delete_lone_events
DELETE FROM event WHERE message = '' AND at < ?;

-- name: delete_events
DELETE FROM event WHERE message = ?;

-- name: delete_idle_destinations
DELETE FROM destination WHERE next_at IS NULL AND suspended = 0 AND blocked_until < ?1 AND factor_at < ?1;

-- name: delete_old_buckets
DELETE FROM bucket WHERE at < ?;

-- name: insert_dead_letter
INSERT INTO dead_letter (message, at, reason, headers) SELECT id, ?, ?, headers FROM message WHERE id = ? ON CONFLICT (message, at) DO NOTHING;

-- name: dead_letters
SELECT message, at, reason, headers FROM dead_letter WHERE at < ? OR (at = ? AND message < ?) ORDER BY at DESC, message DESC LIMIT ?;

-- name: delete_shorter_suppression
DELETE FROM suppression WHERE address = :address AND scope = :scope AND owner = :owner AND expires_at <> 0 AND (:expires = 0 OR expires_at < :expires);

-- name: insert_suppression
INSERT INTO suppression (scope, owner, address, reason, evidence, created_at, expires_at)
VALUES (:scope, :owner, :address, :reason, :evidence, :created, :expires) ON CONFLICT (address, scope, owner) DO NOTHING;

-- name: delete_suppression
DELETE FROM suppression WHERE scope = ? AND owner = ? AND address = ?;

-- name: suppressions
SELECT scope, owner, address, reason, evidence, created_at, expires_at, number FROM suppression
WHERE number > :after AND (:scope = '' OR scope = :scope) AND (:owner = '' OR owner = :owner) AND (:address = '' OR address = :address)
ORDER BY number LIMIT :limit;

-- name: suppressed
SELECT scope, owner, address, reason, evidence, created_at, expires_at, number FROM suppression
WHERE address = :address AND (expires_at = 0 OR expires_at > :now)
  AND (scope = 'global' OR (scope = 'tenant' AND owner = :tenant) OR (scope = 'domain' AND owner = :domain)) LIMIT 1;

-- name: delete_expired_suppressions
DELETE FROM suppression WHERE expires_at > 0 AND expires_at < ?;

-- name: recall
SELECT value FROM memory WHERE kind = ? AND name = ? AND until > ?;

-- name: remember
INSERT INTO memory (kind, name, value, until) VALUES (?, ?, ?, ?)
ON CONFLICT (kind, name) DO UPDATE SET value = excluded.value, until = excluded.until;

-- name: agree
-- What stands stays until its time is over; ?5 is now.
INSERT INTO memory (kind, name, value, until) VALUES (?1, ?2, ?3, ?4)
ON CONFLICT (kind, name) DO UPDATE SET value = iif(until > ?5, value, excluded.value), until = iif(until > ?5, until, excluded.until) RETURNING value;

-- name: forget
DELETE FROM memory WHERE rowid IN (SELECT rowid FROM memory WHERE until <= ? LIMIT ?);
