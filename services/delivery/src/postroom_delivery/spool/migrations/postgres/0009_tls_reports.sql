-- How TLS went, for reports to the domains that ask for them (RFC 8460): sessions of one day (days since 1970, UTC) by domain and result, each
-- process in rows of its own. key is a digest of what stands between reason and domain.
CREATE TABLE tls_session (
  day bigint NOT NULL, domain text NOT NULL, holder text NOT NULL, key text NOT NULL,
  policy text NOT NULL, result text NOT NULL, host text NOT NULL, address text NOT NULL, reason text NOT NULL, count bigint NOT NULL,
  PRIMARY KEY (day, domain, holder, key)
) WITH (fillfactor = 70);
