-- Addresses that get no mail any more. A change gives an entry a new number, so that readers see what is new.
CREATE TABLE suppression (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  scope TEXT NOT NULL, owner TEXT NOT NULL, address TEXT NOT NULL, reason TEXT NOT NULL, evidence TEXT NOT NULL,
  created_at INTEGER NOT NULL, expires_at INTEGER NOT NULL,  -- 0: for ever
  UNIQUE (address, scope, owner)
);
