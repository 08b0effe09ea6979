-- name: now
SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint;

-- Accepting

-- name: insert_chunks
INSERT INTO body (message, sequence, data) SELECT * FROM unnest($1::text[], $2::int[], $3::bytea[])
ON CONFLICT (message, sequence) DO UPDATE SET data = excluded.data;

-- name: staging_goes_on
INSERT INTO staging (message, since) SELECT id, $1 FROM unnest($2::text[]) AS given(id)
ON CONFLICT (message) DO UPDATE SET since = excluded.since;

-- name: staging_ends
DELETE FROM staging WHERE message = ANY($1::text[]);

-- name: delete_staged
DELETE FROM body WHERE message = ANY($1::text[]) AND NOT EXISTS (SELECT 1 FROM message WHERE id = body.message);

-- name: stale_stagings
SELECT message FROM staging WHERE since < $1 LIMIT 100 FOR UPDATE SKIP LOCKED;

-- name: staged_sizes
-- $2: the sequence of the last chunk, which comes with the accept.
SELECT body.message, sum(length(data)) AS size FROM body JOIN unnest($1::text[], $2::int[]) AS last(message, sequence) ON body.message = last.message
WHERE body.sequence < last.sequence GROUP BY body.message;

-- name: known_messages
SELECT id FROM message WHERE id = ANY($1::text[]);

-- name: make_usage
INSERT INTO usage (key, window_seconds, window_number, messages) SELECT *, 0, 0 FROM unnest($1::text[], $2::bigint[])
ON CONFLICT (key, window_seconds) DO NOTHING;

-- name: lock_usage
SELECT usage.key, usage.window_seconds, window_number, messages FROM usage
JOIN unnest($1::text[], $2::bigint[]) AS given(key, seconds) ON usage.key = given.key AND usage.window_seconds = given.seconds
ORDER BY usage.key, usage.window_seconds FOR UPDATE OF usage;

-- name: write_usage
UPDATE usage SET window_number = given.number, messages = given.count
FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) AS given(key, seconds, number, count)
WHERE usage.key = given.key AND usage.window_seconds = given.seconds;

-- name: insert_messages
-- A second accept of the same id inserts nothing.
INSERT INTO message (id, tenant, pool, domain, credential, reverse_path, body_size, size, eight_bit, ret, envid, client_address, traceparent,
  received_at, expires_at, open_recipients, headers,
  smtputf8, require_tls, tls_optional, binary_mime, hold_until, deliver_by, deliver_by_return, priority, sign, campaign)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bigint[], $9::boolean[],
  $10::text[], $11::text[], $12::text[], $13::text[], $14::bigint[], $15::bigint[], $16::int[], $17::bytea[],
  $18::boolean[], $19::boolean[], $20::boolean[], $21::boolean[], $22::bigint[], $23::bigint[], $24::boolean[], $25::int[], $26::boolean[], $27::text[])
ON CONFLICT (id) DO NOTHING RETURNING id;

-- name: insert_recipients
INSERT INTO recipient (message, address, domain, pool, destination, tenant, priority, state, due_at, notify, orcpt)
SELECT message, address, domain, pool, destination, tenant, priority, 'scheduled', due, notify, orcpt
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::int[], $8::bigint[], $9::text[], $10::text[])
  AS given(message, address, domain, pool, destination, tenant, priority, due, notify, orcpt);

-- name: insert_events
-- One statement per transaction: a number is the transaction's, then the event's within it.
INSERT INTO event (number, at, message, recipient, kind, code, enhanced, text, class, remote, tls, attempt)
SELECT (pg_current_xact_id()::text::bigint << 20) | n, $1, message, recipient, kind, code, enhanced, text, class, remote, tls, attempt
FROM unnest($2::text[], $3::text[], $4::text[], $5::int[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[], $11::int[])
  WITH ORDINALITY AS given(message, recipient, kind, code, enhanced, text, class, remote, tls, attempt, n);

-- name: insert_arrivals
INSERT INTO arrival (pool, destination, tenant, due, unblock) SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::boolean[]);

-- Claiming

-- name: hold_lease
-- The longest lease counts: two statements of one process may overtake each other.
INSERT INTO holder (name, lease_until) VALUES ($1, $2)
ON CONFLICT (name) DO UPDATE SET lease_until = greatest(holder.lease_until, excluded.lease_until);

-- name: end_lease
UPDATE holder SET lease_until = 0 WHERE name = $1;

-- name: take_arrivals
DELETE FROM arrival WHERE id IN (SELECT id FROM arrival ORDER BY id LIMIT 5000 FOR UPDATE SKIP LOCKED)
RETURNING pool, destination, tenant, due, unblock;

-- name: wake_destinations
-- Never earlier than a block that is in force; NULL makes the row and wakes nobody.
INSERT INTO destination (pool, name, next_at) SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[])
ON CONFLICT (pool, name) DO UPDATE SET next_at = CASE WHEN excluded.next_at IS NULL THEN destination.next_at
  ELSE greatest(destination.blocked_until, least(coalesce(destination.next_at, excluded.next_at), excluded.next_at)) END;

-- name: lock_destinations
SELECT 1 FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS given(pool, name, n) JOIN destination d ON d.pool = given.pool AND d.name = given.name
ORDER BY n FOR UPDATE OF d;

-- name: unblock_destinations
UPDATE destination SET blocked_until = 0 FROM unnest($1::text[], $2::text[]) AS given(pool, name)
WHERE destination.pool = given.pool AND destination.name = given.name;

-- name: wake_lanes
INSERT INTO lane (pool, destination, tenant, next_due) SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[])
ON CONFLICT (pool, destination, tenant) DO UPDATE SET next_due = least(lane.next_due, excluded.next_due);

-- name: idle_destinations
-- Destinations whose connection waits for work: their slot is taken, so next_at says when another slot is free, not when there is work.
SELECT d.pool, d.name, d.tokens, d.tokens_at, d.factor, d.factor_at FROM unnest($2::text[], $3::text[]) AS given(pool, name)
JOIN destination d ON d.pool = given.pool AND d.name = given.name
WHERE NOT suspended AND blocked_until <= $1 AND EXISTS (SELECT 1 FROM lane l WHERE l.pool = d.pool AND l.destination = d.name AND l.next_due <= $1
  AND NOT EXISTS (SELECT 1 FROM suspended_tenant s WHERE s.tenant = l.tenant))
FOR UPDATE OF d SKIP LOCKED;

-- name: due_destinations
SELECT pool, name, tokens, tokens_at, factor, factor_at FROM destination WHERE next_at <= $1 AND NOT suspended ORDER BY next_at LIMIT $2 FOR UPDATE SKIP LOCKED;

-- name: slots
-- A statement of its own, after the locks: what other claims have committed until then is seen.
SELECT slot.pool, slot.destination, count(*) AS used, min(holder.lease_until) AS free_at
FROM unnest($1::text[], $2::text[]) AS given(pool, name) JOIN slot ON slot.pool = given.pool AND slot.destination = given.name
LEFT JOIN holder ON holder.name = slot.holder GROUP BY 1, 2;

-- name: slots_of_pools
SELECT pool, count(*) AS used FROM slot WHERE pool = ANY($1::text[]) GROUP BY 1;

-- name: make_buckets
INSERT INTO bucket (key, window_seconds) SELECT * FROM unnest($1::text[], $2::int[]) ON CONFLICT (key, window_seconds) DO NOTHING;

-- name: lock_buckets
SELECT b.key, b.window_seconds, b.tokens, b.at FROM unnest($1::text[], $2::int[]) AS given(key, seconds)
JOIN bucket b ON b.key = given.key AND b.window_seconds = given.seconds ORDER BY b.key, b.window_seconds FOR UPDATE OF b;

-- name: write_buckets
UPDATE bucket SET tokens = given.tokens, at = given.at FROM unnest($1::text[], $2::int[], $3::float8[], $4::bigint[]) AS given(key, seconds, tokens, at)
WHERE bucket.key = given.key AND bucket.window_seconds = given.seconds;

-- name: lanes_wait
UPDATE lane SET next_due = given.due FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) AS given(pool, destination, tenant, due)
WHERE lane.pool = given.pool AND lane.destination = given.destination AND lane.tenant = given.tenant;

-- name: lock_pace
SELECT factor, factor_at FROM destination WHERE pool = $1 AND name = $2 FOR UPDATE;

-- name: write_pace
UPDATE destination SET factor = $3, factor_at = $4 WHERE pool = $1 AND name = $2;

-- name: due_work
-- For each destination the tenant whose turn it is, and its due recipients: by priority, then by time. The nested loops keep that order.
SELECT given.pool, given.name, l.tenant, r.id, r.message, r.address, r.attempts, r.notify, r.orcpt, r.delay_told, m.size, m.body_size, m.domain
FROM unnest($3::text[], $4::text[]) AS given(pool, name)
CROSS JOIN LATERAL (SELECT tenant FROM lane WHERE lane.pool = given.pool AND lane.destination = given.name AND next_due <= $1
  AND NOT EXISTS (SELECT 1 FROM suspended_tenant s WHERE s.tenant = lane.tenant) ORDER BY turn_at LIMIT 1) AS l
LEFT JOIN LATERAL (
  SELECT found.* FROM generate_series(9, -9, -1) AS p(priority) CROSS JOIN LATERAL (
    SELECT id, message, address, attempts, notify, orcpt, delay_told FROM recipient
    WHERE pool = given.pool AND destination = given.name AND tenant = l.tenant AND priority = p.priority AND state = 'scheduled' AND due_at <= $1
    ORDER BY pool, destination, tenant, priority, due_at, id LIMIT $2
  ) AS found LIMIT $2
) AS r ON true
LEFT JOIN message m ON m.id = r.message;

-- name: lease
UPDATE recipient SET state = 'leased', fence = fence + 1, holder = $1 FROM unnest($2::bigint[]) AS given(id)
WHERE recipient.id = given.id AND state = 'scheduled' RETURNING recipient.id, fence;

-- name: claimed_messages
SELECT id, tenant, domain, reverse_path, headers, body_size, eight_bit, received_at, expires_at, ret, envid, traceparent, sign,
  smtputf8, require_tls, tls_optional, binary_mime, hold_until, deliver_by, deliver_by_return, priority FROM message WHERE id = ANY($1::text[]);

-- name: inline_bodies
SELECT message, data FROM body WHERE message = ANY($1::text[]) ORDER BY message, sequence;

-- name: lane_turns
UPDATE lane SET turn_at = $1, next_due = coalesce((
  SELECT min(first.due_at) FROM generate_series(9, -9, -1) AS p(priority) CROSS JOIN LATERAL (
    SELECT due_at FROM recipient r WHERE r.pool = lane.pool AND r.destination = lane.destination AND r.tenant = lane.tenant AND r.priority = p.priority
      AND r.state = 'scheduled' ORDER BY r.pool, r.destination, r.tenant, r.priority, r.due_at, r.id LIMIT 1) AS first), 9223372036854775807)
FROM unnest($2::text[], $3::text[], $4::text[]) AS given(pool, destination, tenant)
WHERE lane.pool = given.pool AND lane.destination = given.destination AND lane.tenant = given.tenant;

-- name: delete_empty_lanes
DELETE FROM lane USING unnest($1::text[], $2::text[]) AS given(pool, name)
WHERE lane.pool = given.pool AND lane.destination = given.name AND next_due = 9223372036854775807;

-- name: lanes_next_due
SELECT lane.pool, lane.destination, min(next_due) AS due FROM unnest($1::text[], $2::text[]) AS given(pool, name)
JOIN lane ON lane.pool = given.pool AND lane.destination = given.name
WHERE NOT EXISTS (SELECT 1 FROM suspended_tenant s WHERE s.tenant = lane.tenant) GROUP BY 1, 2;

-- name: update_destinations
UPDATE destination SET next_at = given.next_at, tokens = given.tokens, tokens_at = given.tokens_at
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::float8[], $5::bigint[]) AS given(pool, name, next_at, tokens, tokens_at)
WHERE destination.pool = given.pool AND destination.name = given.name;

-- name: insert_slots
INSERT INTO slot (pool, destination, holder) SELECT pool, name, $1 FROM unnest($2::text[], $3::text[]) AS given(pool, name) RETURNING id, pool, destination;

-- name: next_at
SELECT next_at FROM destination WHERE next_at IS NOT NULL AND NOT suspended ORDER BY next_at LIMIT 1;

-- name: delete_slot
DELETE FROM slot WHERE id = $1;

-- name: block_destination
-- Blocks until $3, and lets the destination be looked at again: its lanes say when there is work. Work that has been due for long does not bring it
-- before others that wait: it keeps its place in the line, or goes to the end, which is $4.
UPDATE destination SET blocked_until = greatest(blocked_until, $3), next_at = (
  SELECT greatest(destination.blocked_until, $3, min(next_due), least(coalesce(destination.next_at, $4), $4)) FROM lane
  WHERE lane.pool = $1 AND lane.destination = $2 AND next_due < 9223372036854775807 HAVING min(next_due) IS NOT NULL)
WHERE pool = $1 AND name = $2;

-- name: read_body
SELECT data FROM body WHERE message = $1 AND sequence >= $2 ORDER BY sequence LIMIT $3;

-- Recovering

-- name: ended_holders
SELECT name FROM holder WHERE lease_until < $1 FOR UPDATE SKIP LOCKED;

-- name: delete_holders
DELETE FROM holder WHERE name = ANY($1::text[]);

-- name: take_back
WITH before AS (SELECT id, in_doubt FROM recipient WHERE state = 'leased' AND holder = ANY($2::text[]) ORDER BY id FOR UPDATE)
UPDATE recipient SET state = 'scheduled', due_at = $1, fence = fence + 1, holder = NULL, in_doubt = false,
  ambiguous = ambiguous + before.in_doubt::int, attempts = attempts + before.in_doubt::int
FROM before WHERE recipient.id = before.id
RETURNING message, address, pool, destination, tenant, attempts, before.in_doubt;

-- name: give_back
WITH before AS (SELECT r.id, r.in_doubt FROM unnest($3::bigint[], $4::bigint[]) AS given(id, fence) JOIN recipient r USING (id)
  WHERE r.state = 'leased' AND r.holder = $2 AND r.fence = given.fence ORDER BY r.id FOR UPDATE OF r)
UPDATE recipient SET state = 'scheduled', due_at = $1, fence = fence + 1, holder = NULL, in_doubt = false,
  ambiguous = ambiguous + before.in_doubt::int, attempts = attempts + before.in_doubt::int
FROM before WHERE recipient.id = before.id
RETURNING message, address, pool, destination, tenant, attempts, before.in_doubt;

-- name: take_slots
DELETE FROM slot WHERE holder = ANY($1::text[]) RETURNING pool, destination;

-- name: fold_tally
WITH taken AS (DELETE FROM tally_difference RETURNING pool, destination, state, n),
  added AS (SELECT pool, destination, state, sum(n)::bigint AS n FROM taken GROUP BY 1, 2, 3 HAVING sum(n) <> 0 ORDER BY 1, 2, 3)
INSERT INTO tally AS t (pool, destination, state, n) SELECT * FROM added
ON CONFLICT (pool, destination, state) DO UPDATE SET n = t.n + excluded.n;

-- name: delete_empty_tally
DELETE FROM tally WHERE n = 0;

-- Settling

-- name: doubt
-- All or nothing, in one statement.
WITH given AS MATERIALIZED (SELECT * FROM unnest($2::bigint[], $3::bigint[]) AS given(id, fence)),
  mine AS MATERIALIZED (SELECT count(*) AS n FROM given JOIN recipient r USING (id) WHERE r.holder = $1 AND r.fence = given.fence AND r.state = 'leased')
UPDATE recipient SET in_doubt = true FROM given, mine
WHERE mine.n = cardinality($2) AND recipient.id = given.id AND holder = $1 AND recipient.fence = given.fence AND state = 'leased' RETURNING recipient.id;

-- name: settle
-- $1: the holder, NULL for what nobody has leased.
UPDATE recipient SET state = given.state, due_at = given.due, attempts = attempts + given.attempted, last_reply = coalesce(given.reply, last_reply),
  last_class = coalesce(given.class, last_class), destination = coalesce(given.destination, recipient.destination), in_doubt = false,
  ambiguous = recipient.ambiguous + given.ambiguous, delay_told = recipient.delay_told OR given.told, holder = NULL
FROM unnest($2::bigint[], $3::bigint[], $4::text[], $5::bigint[], $6::int[], $7::text[], $8::text[], $9::text[], $10::int[], $11::boolean[])
  AS given(id, fence, state, due, attempted, reply, class, destination, ambiguous, told)
WHERE recipient.id = given.id AND recipient.fence = given.fence AND holder IS NOT DISTINCT FROM $1
  AND (recipient.state = 'leased' OR $1 IS NULL AND recipient.state IN ('scheduled', 'held'))
RETURNING recipient.id, recipient.message, recipient.address, recipient.pool, recipient.destination, recipient.tenant, recipient.attempts;

-- name: insert_dead_letters
INSERT INTO dead_letter (message, at, reason, headers) SELECT m.id, $1, given.reason, m.headers
FROM unnest($2::text[], $3::text[]) AS given(message, reason) JOIN message m ON m.id = given.message ON CONFLICT (message, at) DO NOTHING;

-- name: close_recipients
UPDATE message SET open_recipients = open_recipients - given.n, headers = CASE WHEN open_recipients = given.n THEN ''::bytea ELSE headers END
FROM unnest($1::text[], $2::int[]) AS given(id, n) WHERE message.id = given.id RETURNING message.id, open_recipients;

-- name: delete_bodies
DELETE FROM body WHERE message = ANY($1::text[]);

-- name: fences
SELECT id, fence FROM recipient WHERE id = ANY($1::bigint[]);

-- People

-- name: retry
UPDATE recipient SET due_at = $1 WHERE id = ANY($2::bigint[]) AND state = 'scheduled' RETURNING pool, destination, tenant, message, address, attempts;

-- name: hold
UPDATE recipient SET state = 'held' WHERE id = ANY($1::bigint[]) AND state = 'scheduled'
RETURNING pool, destination, tenant, message, address, attempts;

-- name: release
UPDATE recipient SET state = 'scheduled', due_at = $1 WHERE id = ANY($2::bigint[]) AND state = 'held'
RETURNING pool, destination, tenant, message, address, attempts;

-- name: suspend
INSERT INTO destination (pool, name, suspended) VALUES ($1, $2, $3) ON CONFLICT (pool, name) DO UPDATE SET suspended = excluded.suspended;

-- name: message_rows
SELECT id, reverse_path, pool, tenant, domain, credential, client_address, size, received_at, expires_at, headers, ret, envid,
  smtputf8, require_tls, tls_optional, binary_mime, hold_until, deliver_by, deliver_by_return, priority FROM message WHERE id = ANY($1::text[]) ORDER BY id;

-- name: recipient_rows
-- Of each message the first 1000.
SELECT given.id AS message, r.* FROM unnest($1::text[]) AS given(id) CROSS JOIN LATERAL (
  SELECT id, address, state, due_at, attempts, last_reply, last_class, ambiguous > 0 AS ambiguous, notify, orcpt, destination FROM recipient
  WHERE message = given.id ORDER BY id LIMIT 1000) AS r;

-- name: dead_letters
SELECT message, at, reason, headers FROM dead_letter WHERE (at, message) < ($1, $2) ORDER BY at DESC, message DESC LIMIT $3;

-- name: events_of_message
SELECT number, at, message, recipient, kind, code, enhanced, text, class, remote, tls, attempt FROM event
WHERE message = $1 AND number > $2 ORDER BY number LIMIT $3;

-- name: events
-- Stops before the oldest transaction that still runs, or its events would be passed over.
SELECT number, at, message, recipient, kind, code, enhanced, text, class, remote, tls, attempt FROM event
WHERE number > $1 AND number < (pg_snapshot_xmin(pg_current_snapshot())::text::bigint << 20) ORDER BY number LIMIT $2;

-- name: stats_states
SELECT state, sum(n)::bigint AS n FROM (SELECT state, n FROM tally UNION ALL SELECT state, n FROM tally_difference) AS counted GROUP BY 1 HAVING sum(n) <> 0;

-- name: stats_due
-- Counted up to $2: a million due messages must not be counted one by one. The oldest is what the lanes say.
SELECT (SELECT count(*) FROM (
    SELECT 1 FROM lane CROSS JOIN LATERAL (
      SELECT 1 FROM generate_series(9, -9, -1) AS p(priority) CROSS JOIN LATERAL (
        SELECT 1 FROM recipient r WHERE r.pool = lane.pool AND r.destination = lane.destination AND r.tenant = lane.tenant AND r.priority = p.priority
          AND r.state = 'scheduled' AND r.due_at <= $1 LIMIT $2) AS found LIMIT $2) AS of_lane
    WHERE lane.next_due <= $1 LIMIT $2) AS bounded) AS due,
  coalesce((SELECT min(next_due) FROM lane WHERE next_due <= $1), 0) AS oldest;

-- name: backlog_destinations
SELECT pool, name, tokens, tokens_at, factor, factor_at, next_at, (SELECT count(*) FROM slot WHERE slot.pool = d.pool AND slot.destination = d.name) AS used
FROM destination d WHERE next_at <= $1 AND NOT suspended ORDER BY next_at LIMIT $2;

-- name: backlog_arrivals
-- What no claim has folded in yet, as claims will see it: while all workers are busy nobody claims.
SELECT a.pool, a.destination AS name, a.tenant, a.due, d.tokens, d.tokens_at, coalesce(d.factor, 1) AS factor, coalesce(d.factor_at, 0) AS factor_at,
  greatest(CASE WHEN a.unblock THEN 0 ELSE coalesce(d.blocked_until, 0) END, least(coalesce(d.next_at, a.due), a.due)) AS next_at,
  (SELECT count(*) FROM slot WHERE slot.pool = a.pool AND slot.destination = a.destination) AS used
FROM (SELECT pool, destination, tenant, min(due) AS due, bool_or(unblock) AS unblock FROM (SELECT * FROM arrival ORDER BY id LIMIT $2) AS first GROUP BY 1, 2, 3) AS a
LEFT JOIN destination d ON d.pool = a.pool AND d.name = a.destination
WHERE a.due <= $1 AND NOT coalesce(d.suspended, false);

-- name: backlog_lanes
SELECT lane.pool, lane.destination AS name, tenant, greatest(next_due, turn_at) AS since FROM unnest($2::text[], $3::text[]) AS given(pool, name)
JOIN lane ON lane.pool = given.pool AND lane.destination = given.name
WHERE next_due <= $1 AND NOT EXISTS (SELECT 1 FROM suspended_tenant s WHERE s.tenant = lane.tenant) ORDER BY turn_at;

-- name: backlog_counts
-- Each lane up to its own bound, by the priorities that it has: nearly always one.
SELECT given.pool, given.name, given.tenant, (
  SELECT count(*) FROM (SELECT 1 FROM generate_series(ends.highest, ends.lowest, -1) AS p(priority) CROSS JOIN LATERAL (
    SELECT 1 FROM recipient r WHERE r.pool = given.pool AND r.destination = given.name AND r.tenant = given.tenant AND r.priority = p.priority
      AND r.state = 'scheduled' AND r.due_at <= $1 LIMIT given.most) AS found LIMIT given.most) AS bounded) AS due
FROM unnest($2::text[], $3::text[], $4::text[], $5::int[]) AS given(pool, name, tenant, most)
CROSS JOIN LATERAL (SELECT
  (SELECT r.priority FROM recipient r WHERE r.pool = given.pool AND r.destination = given.name AND r.tenant = given.tenant AND r.state = 'scheduled'
    ORDER BY r.pool DESC, r.destination DESC, r.tenant DESC, r.priority DESC LIMIT 1) AS highest,
  (SELECT r.priority FROM recipient r WHERE r.pool = given.pool AND r.destination = given.name AND r.tenant = given.tenant AND r.state = 'scheduled'
    ORDER BY r.pool, r.destination, r.tenant, r.priority LIMIT 1) AS lowest) AS ends;

-- name: backlog_connections
SELECT pool, count(*) AS used FROM slot GROUP BY 1;

-- name: backlog_buckets
SELECT b.key, b.window_seconds, b.tokens, b.at FROM unnest($1::text[], $2::int[]) AS given(key, seconds)
JOIN bucket b ON b.key = given.key AND b.window_seconds = given.seconds;

-- name: stats_ambiguous
SELECT count(*) AS n FROM recipient WHERE ambiguous > 0;

-- name: stats_destinations
WITH counted AS (
  SELECT pool, destination, sum(n)::bigint AS n FROM (
    SELECT pool, destination, n FROM tally WHERE state = 'scheduled' UNION ALL SELECT pool, destination, n FROM tally_difference WHERE state = 'scheduled') AS both_parts
  GROUP BY 1, 2)
SELECT d.pool, d.name, coalesce(counted.n, 0) AS scheduled, (SELECT count(*) FROM slot s WHERE s.pool = d.pool AND s.destination = d.name) AS connections,
  d.suspended, coalesce(d.next_at, 0) AS next_at, d.factor, d.factor_at
FROM destination d LEFT JOIN counted ON counted.pool = d.pool AND counted.destination = d.name
WHERE d.next_at IS NOT NULL OR d.suspended OR d.factor < 1 OR counted.n > 0 OR EXISTS (SELECT 1 FROM slot s WHERE s.pool = d.pool AND s.destination = d.name)
ORDER BY scheduled DESC, d.name LIMIT 100;

-- Forgetting

-- name: final_messages
SELECT id FROM message WHERE open_recipients = 0 AND received_at < $1 ORDER BY received_at LIMIT $2 FOR UPDATE SKIP LOCKED;

-- name: delete_messages
DELETE FROM message WHERE id = ANY($1::text[]);

-- name: delete_recipients
DELETE FROM recipient WHERE message = ANY($1::text[]);

-- name: delete_idle_destinations
DELETE FROM destination WHERE next_at IS NULL AND NOT suspended AND blocked_until < $1 AND factor_at < $1
  AND NOT EXISTS (SELECT 1 FROM slot WHERE slot.pool = destination.pool AND slot.destination = destination.name);

-- name: delete_old_buckets
DELETE FROM bucket WHERE at < $1;

-- name: event_days
SELECT substr(relname, 7)::bigint AS day FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid WHERE inhparent = 'event'::regclass;

-- name: list_by_recipient
-- "among" is replaced by the condition of a partial index; $4 and $10 are the other statement's.
SELECT DISTINCT message FROM recipient WHERE message > $1 AND among AND state = ANY($2::text[]) AND ($3 = '' OR domain = $3) AND ($4 = '' AND $10 = 0::bigint)
  AND ($6 = '' OR tenant = $6) AND ($7 = '' OR pool = $7) AND ($8 = '' OR destination = $8) AND ($9 = '' OR last_class = $9) ORDER BY message LIMIT $5;

-- name: list_by_message
-- For filters on what belongs to the message.
SELECT m.id AS message FROM message m WHERE m.id > $1 AND for_messages AND ($4 = '' OR m.reverse_path = $4) AND ($10 = 0::bigint OR m.received_at < $10)
  AND EXISTS (SELECT 1 FROM recipient WHERE message = m.id AND among AND state = ANY($2::text[]) AND ($3 = '' OR domain = $3)
    AND ($6 = '' OR tenant = $6) AND ($7 = '' OR pool = $7) AND ($8 = '' OR destination = $8) AND ($9 = '' OR last_class = $9)) ORDER BY m.id LIMIT $5;

-- Suppression

-- name: suppress
INSERT INTO suppression (scope, owner, address, reason, evidence, created_at, expires_at)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::bigint[])
ON CONFLICT (address, scope, owner) DO UPDATE SET reason = excluded.reason, evidence = excluded.evidence, created_at = excluded.created_at,
  expires_at = excluded.expires_at, number = nextval(pg_get_serial_sequence('suppression', 'number'))
WHERE suppression.expires_at <> 0 AND (excluded.expires_at = 0 OR suppression.expires_at < excluded.expires_at) RETURNING number;

-- name: unsuppress
DELETE FROM suppression s USING unnest($1::text[], $2::text[], $3::text[]) AS given(scope, owner, address)
WHERE s.scope = given.scope AND s.owner = given.owner AND s.address = given.address RETURNING number;

-- name: suppressions
SELECT scope, owner, address, reason, evidence, created_at, expires_at, number FROM suppression
WHERE number > $1 AND ($2 = '' OR scope = $2) AND ($3 = '' OR owner = $3) AND ($4 = '' OR address = $4) ORDER BY number LIMIT $5;

-- name: suppressed
SELECT DISTINCT ON (address) scope, owner, address, reason, evidence, created_at, expires_at, number FROM suppression
WHERE address = ANY($4::text[]) AND (expires_at = 0 OR expires_at > $1)
  AND (scope = 'global' OR (scope = 'tenant' AND owner = $2) OR (scope = 'domain' AND owner = $3)) ORDER BY address, number;

-- name: delete_expired_suppressions
DELETE FROM suppression WHERE expires_at > 0 AND expires_at < $1;

-- name: recall
SELECT value FROM memory WHERE kind = $1 AND name = $2 AND until > $3;

-- name: remember
INSERT INTO memory (kind, name, value, until) VALUES ($1, $2, $3, $4)
ON CONFLICT (kind, name) DO UPDATE SET value = excluded.value, until = excluded.until;

-- name: agree
-- What stands stays until its time is over; $5 is now.
INSERT INTO memory AS m (kind, name, value, until) VALUES ($1, $2, $3, $4) ON CONFLICT (kind, name) DO UPDATE SET
  value = CASE WHEN m.until > $5 THEN m.value ELSE excluded.value END, until = CASE WHEN m.until > $5 THEN m.until ELSE excluded.until END RETURNING value;

-- name: forget
DELETE FROM memory WHERE until <= $1;
