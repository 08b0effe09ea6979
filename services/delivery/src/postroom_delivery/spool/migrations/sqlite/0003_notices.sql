-- Notices that we make are signed when they leave; a delay is told once per recipient.
ALTER TABLE message ADD COLUMN sign INTEGER NOT NULL DEFAULT 0;
ALTER TABLE recipient ADD COLUMN delay_told INTEGER NOT NULL DEFAULT 0;
