-- name: hold_duty
INSERT INTO duty (name, holder, until) VALUES ($1, $2, $3::bigint + $4::bigint)
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until WHERE duty.holder = excluded.holder OR duty.until < $3::bigint
RETURNING name;

-- name: has_duty
-- Held until the transaction ends, so that nobody takes the duty over in between.
SELECT 1 FROM duty WHERE name = $1 AND holder = $2 FOR UPDATE;

-- name: new_hook
-- What happened before somebody asked to be told is not told. Transactions that still run may hold smaller numbers than the greatest one.
INSERT INTO hook (name, cursor) VALUES ($1, (pg_snapshot_xmin(pg_current_snapshot())::text::bigint << 20) - 1) ON CONFLICT (name) DO NOTHING;

-- name: hooks
SELECT name, cursor, upto, sent, lost, failures, failing_since, next_at, last_at, last_text FROM hook;

-- name: hook
SELECT name, cursor, upto, sent, lost, failures, failing_since, next_at, last_at, last_text FROM hook WHERE name = $1;

-- name: move_hook
UPDATE hook SET cursor = $2, upto = $3, sent = $4, lost = $5, failures = $6, failing_since = $7, next_at = $8, last_at = $9, last_text = $10
WHERE name = $1;

-- name: hook_events
-- All kinds, so that a reader moves on although nothing is for him. Stops before the oldest transaction that still runs, as `events` does.
SELECT e.number, e.at, e.message, e.recipient, e.kind, e.code, e.enhanced, e.text, e.class, e.remote, e.attempt,
  m.tenant, m.domain, m.credential, m.campaign, m.pool
FROM event e JOIN message m ON m.id = e.message
WHERE e.number > $1 AND e.number < (pg_snapshot_xmin(pg_current_snapshot())::text::bigint << 20) ORDER BY e.number LIMIT $2;

-- name: hook_backlog
SELECT kind, count(*) AS count, min(at) AS at FROM
  (SELECT e.kind, e.at FROM event e JOIN message m ON m.id = e.message WHERE e.number > $1 AND m.domain = $2 ORDER BY e.number LIMIT $3) AS waiting
GROUP BY kind;
