-- name: hold_duty
INSERT INTO duty (name, holder, until) VALUES (?1, ?2, ?3 + ?4)
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until WHERE holder = excluded.holder OR until < ?3;

-- name: has_duty
SELECT 1 FROM duty WHERE name = ? AND holder = ?;

-- name: new_hook
-- What happened before somebody asked to be told is not told.
INSERT INTO hook (name, cursor) SELECT ?, coalesce(max(number), 0) FROM event WHERE true ON CONFLICT (name) DO NOTHING;

-- name: hooks
SELECT name, cursor, upto, sent, lost, failures, failing_since, next_at, last_at, last_text FROM hook;

-- name: hook
SELECT name, cursor, upto, sent, lost, failures, failing_since, next_at, last_at, last_text FROM hook WHERE name = ?;

-- name: move_hook
UPDATE hook SET cursor = ?2, upto = ?3, sent = ?4, lost = ?5, failures = ?6, failing_since = ?7, next_at = ?8, last_at = ?9, last_text = ?10
WHERE name = ?1;

-- name: hook_events
-- All kinds, so that a reader moves on although nothing is for him.
SELECT e.number, e.at, e.message, e.recipient, e.kind, e.code, e.enhanced, e.text, e.class, e.remote, e.attempt,
  m.tenant, m.domain, m.credential, m.campaign, m.pool
FROM event e JOIN message m ON m.id = e.message WHERE e.number > ? ORDER BY e.number LIMIT ?;

-- name: hook_backlog
SELECT kind, count(*), min(at) FROM
  (SELECT e.kind AS kind, e.at AS at FROM event e JOIN message m ON m.id = e.message WHERE e.number > ? AND m.domain = ? ORDER BY e.number LIMIT ?)
GROUP BY kind;
