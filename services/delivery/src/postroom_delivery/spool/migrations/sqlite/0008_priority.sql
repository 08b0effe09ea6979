-- Higher priorities of a tenant go first (RFC 6710), so the order of its due work begins with them.
ALTER TABLE recipient ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
UPDATE recipient SET priority = (SELECT priority FROM message WHERE id = recipient.message) WHERE state IN ('scheduled', 'leased', 'held');
DROP INDEX recipient_due;
CREATE INDEX recipient_due ON recipient (pool, destination, tenant, priority, due_at) WHERE state = 'scheduled';
