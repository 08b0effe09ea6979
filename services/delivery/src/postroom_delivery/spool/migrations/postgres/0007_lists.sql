-- What people select from a long queue: open recipients, and those that came to no good end, each found without a look at the rows of the others.
-- The columns are those that filters ask for, so that even a filter that nothing fits is answered from the index alone.
CREATE INDEX recipient_open ON recipient (message, domain, destination, tenant, pool, last_class, state) WHERE state IN ('scheduled', 'leased', 'held');
CREATE INDEX recipient_failed ON recipient (message) WHERE state IN ('bounced', 'expired', 'deleted');
CREATE INDEX message_open ON message (id, received_at, reverse_path) WHERE open_recipients > 0;
-- Made in seconds for a million rows; accepts wait meanwhile.
