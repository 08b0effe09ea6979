-- What the client asked for beyond the plain message (MailOptions in spool.proto). Times are Unix milliseconds, 0 is no such wish.
ALTER TABLE message ADD COLUMN smtputf8 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE message ADD COLUMN require_tls INTEGER NOT NULL DEFAULT 0;
ALTER TABLE message ADD COLUMN tls_optional INTEGER NOT NULL DEFAULT 0;
ALTER TABLE message ADD COLUMN binary_mime INTEGER NOT NULL DEFAULT 0;
ALTER TABLE message ADD COLUMN hold_until INTEGER NOT NULL DEFAULT 0;
ALTER TABLE message ADD COLUMN deliver_by INTEGER NOT NULL DEFAULT 0;
ALTER TABLE message ADD COLUMN deliver_by_return INTEGER NOT NULL DEFAULT 0;
ALTER TABLE message ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
