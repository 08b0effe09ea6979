-- What delivery has learnt about the world and must not forget with a restart: small values with an end.
CREATE TABLE memory (kind TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, until INTEGER NOT NULL, PRIMARY KEY (kind, name));
CREATE INDEX memory_until ON memory (until);
