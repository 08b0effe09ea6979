-- name: latest_time
SELECT value::bigint AS latest FROM memory WHERE kind = 'clock' AND name = 'latest' FOR UPDATE;

-- name: set_latest_time
INSERT INTO memory (kind, name, value, until) VALUES ('clock', 'latest', $1::bigint::text, 9223372036854775807)
ON CONFLICT (kind, name) DO UPDATE SET value = excluded.value;

-- name: clock_locks_destinations
-- Their lock is the lanes' lock.
SELECT 1 FROM destination ORDER BY pool, name FOR UPDATE;

-- name: back_recipients
-- By $2 milliseconds, and never before what the sender asked for.
UPDATE recipient SET due_at = greatest(due_at - $2, m.hold_until) FROM message m
WHERE m.id = recipient.message AND recipient.state = 'scheduled' AND recipient.due_at > $1;

-- name: back_arrivals
UPDATE arrival SET due = greatest($1, due - $2) WHERE due > $1;

-- name: back_lanes
UPDATE lane SET next_due = greatest($1, next_due - $2) WHERE next_due > $1 AND next_due < 9223372036854775807;

-- name: back_destinations
UPDATE destination SET next_at = CASE WHEN next_at > $1 THEN greatest($1, next_at - $2) ELSE next_at END,
  blocked_until = CASE WHEN blocked_until > $1 THEN greatest($1, blocked_until - $2) ELSE blocked_until END,
  tokens_at = least(tokens_at, $1), factor_at = least(factor_at, $1);

-- name: back_buckets
UPDATE bucket SET at = $1 WHERE at > $1;

-- name: back_holders
UPDATE holder SET lease_until = $1 WHERE lease_until > $1;
