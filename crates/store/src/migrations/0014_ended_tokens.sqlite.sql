-- When the assertion was issued that an access token was issued for: a revocation that comes late ends what was there then.
ALTER TABLE grants ADD COLUMN asserted_at BIGINT;
-- Access tokens that have ended, in the order of their commits, for the guards before MCP servers; an empty `jti` says that all
-- are to be asked about again. The database writes them, whichever way and whichever version ends them, and says when, so that no
-- node's clock counts.
CREATE TABLE ended_tokens (position INTEGER PRIMARY KEY AUTOINCREMENT, jti TEXT NOT NULL, made_at BIGINT NOT NULL);
CREATE INDEX ended_tokens_made_at ON ended_tokens (made_at);
CREATE TRIGGER access_token_ended AFTER UPDATE OF revoked_at ON grants
WHEN OLD.revoked_at IS NULL AND NEW.revoked_at IS NOT NULL AND NEW.kind = 'access_token' BEGIN
  INSERT INTO ended_tokens (jti, made_at) VALUES (NEW.jti, unixepoch());
END;
CREATE TRIGGER access_tokens_of_family_ended AFTER INSERT ON grants WHEN NEW.kind = 'family' BEGIN
  INSERT INTO ended_tokens (jti, made_at) SELECT jti, unixepoch() FROM grants
    WHERE user_id IN (SELECT user_id FROM refresh_tokens WHERE family = NEW.lineage)
    AND lineage = NEW.lineage AND kind = 'access_token';
END;
-- What may end any token. Not that somebody is the first to use a client that registered itself, nor that such a client is
-- forgotten: its tokens end by name, and strangers would have everything asked for again.
CREATE TRIGGER policy_changed_for_tokens AFTER UPDATE OF document ON directory
WHEN NEW.kind IN ('trusted issuer', 'client', 'client host', 'resource') AND NEW.document <> OLD.document
AND NOT (OLD.document LIKE '%"used":false%' AND NEW.document LIKE '%"used":true%') BEGIN
  INSERT INTO ended_tokens (jti, made_at) VALUES ('', unixepoch());
END;
CREATE TRIGGER policy_gone_for_tokens AFTER DELETE ON directory
WHEN OLD.kind IN ('trusted issuer', 'client', 'client host', 'resource', 'account')
AND NOT (OLD.kind = 'client' AND OLD.document LIKE '%"registered":{%') BEGIN
  INSERT INTO ended_tokens (jti, made_at) VALUES ('', unixepoch());
END;
CREATE TRIGGER key_changed_for_tokens AFTER UPDATE ON signing_keys BEGIN
  INSERT INTO ended_tokens (jti, made_at) VALUES ('', unixepoch());
END;
CREATE TRIGGER key_gone_for_tokens AFTER DELETE ON signing_keys BEGIN
  INSERT INTO ended_tokens (jti, made_at) VALUES ('', unixepoch());
END;
CREATE TRIGGER key_beside_changed_for_tokens AFTER UPDATE ON signing_keys_beside BEGIN
  INSERT INTO ended_tokens (jti, made_at) VALUES ('', unixepoch());
END;
CREATE TRIGGER key_beside_gone_for_tokens AFTER DELETE ON signing_keys_beside BEGIN
  INSERT INTO ended_tokens (jti, made_at) VALUES ('', unixepoch());
END;
