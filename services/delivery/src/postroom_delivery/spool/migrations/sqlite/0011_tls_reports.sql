-- How TLS went, for reports to the domains that ask for them (RFC 8460): sessions of one day (days since 1970, UTC) by domain and result, each
-- process in rows of its own. key is a digest of what stands between reason and domain.
CREATE TABLE tls_session (
  day INTEGER NOT NULL, domain TEXT NOT NULL, holder TEXT NOT NULL, key TEXT NOT NULL,
  policy TEXT NOT NULL, result TEXT NOT NULL, host TEXT NOT NULL, address TEXT NOT NULL, reason TEXT NOT NULL, count INTEGER NOT NULL,
  PRIMARY KEY (day, domain, holder, key)
) WITHOUT ROWID;
