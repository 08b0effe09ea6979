-- name: rows_of_domain
SELECT count(*) FROM tls_session WHERE day = ? AND domain = ? AND holder = ?;

-- name: add
INSERT INTO tls_session (day, holder, domain, key, policy, result, host, address, reason, count) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (day, domain, holder, key) DO UPDATE SET count = count + excluded.count;

-- name: domains
SELECT DISTINCT domain FROM tls_session WHERE day = ? AND domain > ? ORDER BY domain LIMIT ?;

-- name: counts
SELECT policy, result, host, address, reason, sum(count) FROM tls_session WHERE day = ? AND domain = ?
GROUP BY key, policy, result, host, address, reason ORDER BY policy, result, host, address, reason;

-- name: forget
DELETE FROM tls_session WHERE day = ? AND domain = ?;

-- name: forget_until
DELETE FROM tls_session WHERE day <= ?;
