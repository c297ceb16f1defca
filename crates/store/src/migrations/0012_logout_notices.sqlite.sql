-- Applications that took part in a session and want to be told when it ends (OpenID Connect Back-Channel Logout), and what
-- they have not been told yet. The database writes a notice whichever way a session ends, and whichever version ends it.
CREATE TABLE session_clients (sid TEXT NOT NULL, client_id TEXT NOT NULL, PRIMARY KEY (sid, client_id));
CREATE TABLE logout_notices (
  id TEXT PRIMARY KEY, sid TEXT NOT NULL, user_id TEXT NOT NULL, client_id TEXT NOT NULL,
  ended_at BIGINT NOT NULL, next_at BIGINT NOT NULL, tries BIGINT NOT NULL DEFAULT 0);
CREATE INDEX logout_notices_next ON logout_notices (next_at);
CREATE TRIGGER session_ended AFTER UPDATE OF ended_at ON sessions WHEN OLD.ended_at IS NULL AND NEW.ended_at IS NOT NULL BEGIN
  INSERT INTO logout_notices (id, sid, user_id, client_id, ended_at, next_at)
    SELECT lower(hex(randomblob(16))), NEW.sid, NEW.user_id, client_id, NEW.ended_at, NEW.ended_at
    FROM session_clients WHERE sid = NEW.sid;
  DELETE FROM session_clients WHERE sid = NEW.sid;
END;
