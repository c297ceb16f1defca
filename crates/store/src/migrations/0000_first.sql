-- What every version has. Integers, booleans and times are BIGINT, all else TEXT: the types both databases share.
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value BIGINT NOT NULL);
INSERT INTO meta (key, value) VALUES ('generation', 1) ON CONFLICT DO NOTHING;
INSERT INTO meta (key, value) VALUES ('schema', 1) ON CONFLICT DO NOTHING;
CREATE TABLE IF NOT EXISTS directory (
  kind TEXT NOT NULL, id TEXT NOT NULL, name TEXT NOT NULL, document TEXT NOT NULL,
  PRIMARY KEY (kind, id), UNIQUE (kind, name));
CREATE TABLE IF NOT EXISTS signing_keys (
  kid TEXT PRIMARY KEY, algorithm TEXT NOT NULL, sealed TEXT NOT NULL,
  created_at BIGINT NOT NULL, retired_at BIGINT);
CREATE TABLE IF NOT EXISTS sessions (
  cookie_hash TEXT PRIMARY KEY, sid TEXT NOT NULL UNIQUE, user_id TEXT NOT NULL,
  authentication TEXT NOT NULL, expires_at BIGINT NOT NULL, ended_at BIGINT);
CREATE INDEX IF NOT EXISTS sessions_user ON sessions (user_id);
CREATE TABLE IF NOT EXISTS authorization_codes (
  hash TEXT PRIMARY KEY, sid TEXT NOT NULL, family TEXT NOT NULL, document TEXT NOT NULL,
  expires_at BIGINT NOT NULL, used_at BIGINT);
CREATE TABLE IF NOT EXISTS pushed_requests (
  hash TEXT PRIMARY KEY, client_id TEXT NOT NULL, document TEXT NOT NULL,
  expires_at BIGINT NOT NULL, opened_at BIGINT, used_at BIGINT);
CREATE TABLE IF NOT EXISTS refresh_tokens (
  hash TEXT PRIMARY KEY, family TEXT NOT NULL, sid TEXT NOT NULL, user_id TEXT NOT NULL,
  client_id TEXT NOT NULL, document TEXT NOT NULL, idle_expires_at BIGINT NOT NULL,
  expires_at BIGINT NOT NULL, replaced_at BIGINT, revoked_at BIGINT);
CREATE INDEX IF NOT EXISTS refresh_tokens_family ON refresh_tokens (family);
CREATE INDEX IF NOT EXISTS refresh_tokens_sid ON refresh_tokens (sid);
CREATE INDEX IF NOT EXISTS refresh_tokens_user ON refresh_tokens (user_id);
CREATE TABLE IF NOT EXISTS used_jtis (
  namespace TEXT NOT NULL, jti TEXT NOT NULL, forget_after BIGINT NOT NULL,
  PRIMARY KEY (namespace, jti));
CREATE TABLE IF NOT EXISTS grants (
  jti TEXT PRIMARY KEY, kind TEXT NOT NULL, user_id TEXT NOT NULL, client_id TEXT NOT NULL,
  party TEXT NOT NULL, lineage TEXT NOT NULL, expires_at BIGINT NOT NULL, revoked_at BIGINT);
CREATE TABLE IF NOT EXISTS installations (
  id TEXT PRIMARY KEY, user_id TEXT NOT NULL, document TEXT NOT NULL, used_at BIGINT NOT NULL,
  revoked_at BIGINT);
CREATE INDEX IF NOT EXISTS installations_user ON installations (user_id);
CREATE INDEX IF NOT EXISTS refresh_tokens_client ON refresh_tokens (client_id);
CREATE TABLE IF NOT EXISTS audit (
  id {serial}, at BIGINT NOT NULL, event TEXT NOT NULL,
  outcome TEXT NOT NULL, person TEXT NOT NULL, client TEXT NOT NULL, document TEXT NOT NULL);
