-- What delivery has learnt about the world and must not forget with a restart: small values with an end.
CREATE TABLE memory (kind text NOT NULL, name text NOT NULL, value text NOT NULL, until bigint NOT NULL, PRIMARY KEY (kind, name));
CREATE INDEX memory_until ON memory (until);
