-- Acts of administrators that carried an idempotency key: what was asked, by its hash, and what was answered.
CREATE TABLE IF NOT EXISTS acts_once (
  key TEXT PRIMARY KEY, request TEXT NOT NULL, status BIGINT, answer TEXT, forget_after BIGINT NOT NULL);
