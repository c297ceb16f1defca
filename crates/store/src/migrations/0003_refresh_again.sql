-- What the successor of a refresh token is made from, and by whom it was rotated out.
ALTER TABLE refresh_tokens ADD COLUMN successor_salt TEXT;
ALTER TABLE refresh_tokens ADD COLUMN replaced_by TEXT;
