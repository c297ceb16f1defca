-- How people prove themselves besides a password: passkeys (Web Authentication), one-time passwords by time (the seed is
-- sealed), recovery codes and an administrator's one-time link (hashes).
CREATE TABLE passkey_handles (user_id TEXT PRIMARY KEY, handle TEXT NOT NULL UNIQUE);
CREATE TABLE passkeys (
  credential_id TEXT PRIMARY KEY, user_id TEXT NOT NULL, document TEXT NOT NULL, name TEXT NOT NULL,
  created_at BIGINT NOT NULL, used_at BIGINT NOT NULL DEFAULT 0, uses BIGINT NOT NULL DEFAULT 0);
CREATE INDEX passkeys_user ON passkeys (user_id);
CREATE TABLE totp (
  user_id TEXT PRIMARY KEY, sealed TEXT NOT NULL, last_step BIGINT NOT NULL DEFAULT 0,
  failures BIGINT NOT NULL DEFAULT 0, not_before BIGINT NOT NULL DEFAULT 0, confirmed_at BIGINT NOT NULL DEFAULT 0);
CREATE TABLE recovery_codes (hash TEXT PRIMARY KEY, user_id TEXT NOT NULL);
CREATE INDEX recovery_codes_user ON recovery_codes (user_id);
CREATE TABLE recovery_links (user_id TEXT PRIMARY KEY, hash TEXT NOT NULL UNIQUE, expires_at BIGINT NOT NULL);
