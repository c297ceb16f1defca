-- Devices that show a code (RFC 8628).
CREATE TABLE IF NOT EXISTS device_codes (
  hash TEXT PRIMARY KEY, user_code_hash TEXT NOT NULL UNIQUE, client_id TEXT NOT NULL,
  document TEXT NOT NULL, asked_from TEXT NOT NULL, asked_at BIGINT NOT NULL,
  expires_at BIGINT NOT NULL, polled_at BIGINT, answered_at BIGINT, used_at BIGINT);
CREATE INDEX IF NOT EXISTS device_codes_end ON device_codes (expires_at);
