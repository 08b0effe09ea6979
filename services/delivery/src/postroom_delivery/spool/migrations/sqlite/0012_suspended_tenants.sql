-- Tenants whose mail is accepted and not sent until somebody lets it go on.
CREATE TABLE suspended_tenant (tenant TEXT PRIMARY KEY) WITHOUT ROWID;
