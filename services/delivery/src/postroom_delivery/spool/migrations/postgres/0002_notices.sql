-- Notices that we make are signed when they leave; a delay is told once per recipient.
ALTER TABLE message ADD COLUMN sign boolean NOT NULL DEFAULT false;
ALTER TABLE recipient ADD COLUMN delay_told boolean NOT NULL DEFAULT false;
