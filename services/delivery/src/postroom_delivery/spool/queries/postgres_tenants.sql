-- name: suspend_tenant
INSERT INTO suspended_tenant (tenant) VALUES ($1) ON CONFLICT (tenant) DO NOTHING RETURNING tenant;

-- name: resume_tenant
DELETE FROM suspended_tenant WHERE tenant = $1 RETURNING tenant;

-- name: wake_tenant
INSERT INTO arrival (pool, destination, tenant, due, unblock) SELECT pool, destination, tenant, next_due, false FROM lane
WHERE tenant = $1 AND next_due < 9223372036854775807;

-- name: suspended_for_claim
-- The lock makes a resumption wait for this claim, so that it finds the lanes that this one makes without waking their destination.
SELECT tenant FROM suspended_tenant ORDER BY tenant FOR SHARE;

-- name: suspended_tenants
SELECT tenant FROM suspended_tenant ORDER BY tenant LIMIT 1000;
