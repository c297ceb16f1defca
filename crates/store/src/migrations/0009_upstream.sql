-- People who sign in at an identity provider in front of which this one stands: whom they are linked to, and what their
-- sessions are checked with. `sealed` is a refresh token of that identity provider, sealed by the key-encryption
-- key; empty where there is none.
CREATE TABLE upstream_links (
  issuer TEXT NOT NULL, tenant TEXT NOT NULL, subject TEXT NOT NULL, upstream TEXT NOT NULL, user_id TEXT NOT NULL,
  linked_at BIGINT NOT NULL, sealed TEXT NOT NULL DEFAULT '', told_at BIGINT NOT NULL DEFAULT 0, PRIMARY KEY (issuer, tenant, subject));
CREATE INDEX upstream_links_user ON upstream_links (user_id);
CREATE INDEX upstream_links_upstream ON upstream_links (upstream);
CREATE TABLE upstream_sessions (
  sid TEXT PRIMARY KEY, upstream TEXT NOT NULL, user_id TEXT NOT NULL, sealed TEXT NOT NULL, checked_at BIGINT NOT NULL,
  trying_until BIGINT NOT NULL, retry_at BIGINT NOT NULL, their_sid TEXT NOT NULL);
CREATE INDEX upstream_sessions_upstream ON upstream_sessions (upstream);
