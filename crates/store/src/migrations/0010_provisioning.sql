-- People and groups that an upstream provisions by SCIM (RFC 7644): whose they are, what they are called there, and what
-- was said of them that has no place in their records. A token is stored as its hash.
CREATE TABLE provisioning_tokens (
  id TEXT PRIMARY KEY, upstream TEXT NOT NULL, hash TEXT NOT NULL UNIQUE, created_at BIGINT NOT NULL,
  expires_at BIGINT NOT NULL, used_at BIGINT NOT NULL DEFAULT 0);
CREATE INDEX provisioning_tokens_upstream ON provisioning_tokens (upstream);
CREATE TABLE provisioned_people (
  user_id TEXT PRIMARY KEY, upstream TEXT NOT NULL, external_id TEXT NOT NULL DEFAULT '', said TEXT NOT NULL,
  created_at BIGINT NOT NULL, changed_at BIGINT NOT NULL, unlinked BIGINT NOT NULL DEFAULT 0);
CREATE INDEX provisioned_people_external ON provisioned_people (upstream, external_id);
CREATE INDEX provisioned_people_upstream ON provisioned_people (upstream, user_id);
CREATE TABLE provisioned_groups (
  id TEXT PRIMARY KEY, upstream TEXT NOT NULL, group_name TEXT NOT NULL, display_name TEXT NOT NULL,
  lower_name TEXT NOT NULL, external_id TEXT NOT NULL DEFAULT '', made BIGINT NOT NULL, version BIGINT NOT NULL DEFAULT 1, created_at BIGINT NOT NULL,
  changed_at BIGINT NOT NULL, UNIQUE (upstream, lower_name), UNIQUE (upstream, group_name));
CREATE INDEX provisioned_groups_name ON provisioned_groups (group_name);
CREATE INDEX provisioned_groups_external ON provisioned_groups (upstream, external_id);
