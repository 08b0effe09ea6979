-- name: rollup_lock
-- One process counts at a time; the others have nothing to do.
SELECT pg_try_advisory_xact_lock($1, 4) AS mine;

-- name: rollup_cursor
SELECT number FROM rollup_cursor;

-- name: unseen_events
-- Stops before the oldest transaction that still runs, as `events` does. Every event has its message as long as it is kept.
SELECT e.number, e.at, e.kind, e.class, e.recipient, e.attempt, m.tenant, m.domain, m.credential, m.campaign, m.pool,
  greatest(m.received_at, m.hold_until) AS due_from
FROM event e JOIN message m ON m.id = e.message
WHERE e.number > $1 AND e.number < (pg_snapshot_xmin(pg_current_snapshot())::text::bigint << 20) ORDER BY e.number LIMIT $2;

-- name: move_rollup_cursor
UPDATE rollup_cursor SET number = $1;

-- name: add_rollup
INSERT INTO rollup (grain, start, tenant, domain, credential, campaign, destination, pool, measure, class, bucket, count)
SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[],
  $11::integer[], $12::bigint[])
ON CONFLICT (grain, start, tenant, domain, credential, campaign, destination, pool, measure, class, bucket)
DO UPDATE SET count = rollup.count + excluded.count;

-- name: forget_rollup
DELETE FROM rollup WHERE grain = $1 AND start < $2;
