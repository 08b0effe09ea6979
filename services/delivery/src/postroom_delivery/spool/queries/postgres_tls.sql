-- name: tls_rows_of_domains
SELECT domain, count(*) AS n FROM tls_session WHERE day = $1 AND holder = $2 AND domain = ANY($3::text[]) GROUP BY domain;

-- name: tls_add
INSERT INTO tls_session AS t (day, holder, domain, key, policy, result, host, address, reason, count)
SELECT $1, $2, * FROM unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::bigint[])
ON CONFLICT (day, domain, holder, key) DO UPDATE SET count = t.count + excluded.count;

-- name: tls_domains
SELECT DISTINCT domain FROM tls_session WHERE day = $1 AND domain > $2 ORDER BY domain LIMIT $3;

-- name: tls_counts
SELECT policy, result, host, address, reason, sum(count)::bigint AS n FROM tls_session WHERE day = $1 AND domain = $2
GROUP BY key, policy, result, host, address, reason ORDER BY policy, result, host, address, reason;

-- name: tls_forget
DELETE FROM tls_session WHERE day = $1 AND domain = $2;

-- name: tls_forget_until
DELETE FROM tls_session WHERE day <= $1;
