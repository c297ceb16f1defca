-- Whose a database is; a mark beside the generation; what is purged and looked up by time, person and client.
CREATE TABLE IF NOT EXISTS identity (key TEXT PRIMARY KEY, value TEXT NOT NULL);
INSERT INTO meta (key, value) VALUES ('generation_mark', {random}) ON CONFLICT DO NOTHING;
CREATE INDEX IF NOT EXISTS used_jtis_end ON used_jtis (forget_after);
CREATE INDEX IF NOT EXISTS grants_end ON grants (expires_at);
CREATE INDEX IF NOT EXISTS pushed_requests_end ON pushed_requests (expires_at);
CREATE INDEX IF NOT EXISTS authorization_codes_end ON authorization_codes (expires_at);
CREATE INDEX IF NOT EXISTS refresh_tokens_end ON refresh_tokens (expires_at);
CREATE INDEX IF NOT EXISTS sessions_end ON sessions (expires_at);
CREATE INDEX IF NOT EXISTS installations_end ON installations (revoked_at);
CREATE INDEX IF NOT EXISTS audit_person ON audit (person, id);
CREATE INDEX IF NOT EXISTS audit_client ON audit (client, id);
CREATE INDEX IF NOT EXISTS audit_refused ON audit (at) WHERE outcome = 'refused';
