-- name: rollup_cursor
SELECT number FROM rollup_cursor;

-- name: unseen_events
-- Every event has its message as long as it is kept: sweep forgets both together.
SELECT e.number, e.at, e.kind, e.class, e.recipient, e.attempt, m.tenant, m.domain, m.credential, m.campaign, m.pool, max(m.received_at, m.hold_until)
FROM event e JOIN message m ON m.id = e.message WHERE e.number > ? ORDER BY e.number LIMIT ?;

-- name: move_rollup_cursor
UPDATE rollup_cursor SET number = ? WHERE number = ?;

-- name: add_rollup
INSERT INTO rollup (grain, start, tenant, domain, credential, campaign, destination, pool, measure, class, bucket, count)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (grain, start, tenant, domain, credential, campaign, destination, pool, measure, class, bucket) DO UPDATE SET count = count + excluded.count;

-- name: forget_rollup
DELETE FROM rollup WHERE grain = ? AND start < ?;
