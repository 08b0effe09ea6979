-- Tenants whose mail is accepted and not sent until somebody lets it go on. Old code goes on sending it until it has been replaced.
CREATE TABLE suspended_tenant (tenant text PRIMARY KEY);
