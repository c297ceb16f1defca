-- When the assertion was issued that an access token was issued for: a revocation that comes late ends what was there then.
ALTER TABLE grants ADD COLUMN asserted_at BIGINT;
-- Access tokens that have ended, for the guards before MCP servers; an empty `jti` says that all are to be asked about again.
-- The database writes them, whichever way and whichever version ends them, and says when, so that no node's clock counts.
-- `position` is the transaction: who has read up to the oldest one that was under way has missed none, whatever order they
-- commit in.
CREATE TABLE ended_tokens (
  position BIGINT NOT NULL DEFAULT (pg_current_xact_id()::text::bigint), jti TEXT NOT NULL,
  made_at BIGINT NOT NULL DEFAULT (extract(epoch FROM clock_timestamp())::bigint));
CREATE INDEX ended_tokens_position ON ended_tokens (position);
CREATE INDEX ended_tokens_made_at ON ended_tokens (made_at);
-- For a whole statement: an issuer may have very many. What is too much to name is all of them.
CREATE FUNCTION passavant_access_tokens_ended() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
  written BIGINT;
BEGIN
  INSERT INTO ended_tokens (jti)
    SELECT now_ended.jti FROM now_ended JOIN earlier USING (jti)
    WHERE now_ended.kind = 'access_token' AND now_ended.revoked_at IS NOT NULL AND earlier.revoked_at IS NULL
    LIMIT 5001;
  GET DIAGNOSTICS written = ROW_COUNT;
  IF written > 5000 THEN
    INSERT INTO ended_tokens (jti) VALUES ('');
  END IF;
  IF written > 0 THEN
    PERFORM pg_notify('passavant_ended_tokens', '');
  END IF;
  RETURN NULL;
END;
$$;
CREATE TRIGGER access_tokens_ended AFTER UPDATE ON grants
  REFERENCING OLD TABLE AS earlier NEW TABLE AS now_ended
  FOR EACH STATEMENT EXECUTE FUNCTION passavant_access_tokens_ended();
CREATE FUNCTION passavant_access_tokens_of_family_ended() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  INSERT INTO ended_tokens (jti) SELECT jti FROM grants
    WHERE user_id IN (SELECT user_id FROM refresh_tokens WHERE family = NEW.lineage)
    AND lineage = NEW.lineage AND kind = 'access_token';
  PERFORM pg_notify('passavant_ended_tokens', '');
  RETURN NULL;
END;
$$;
CREATE TRIGGER access_tokens_of_family_ended AFTER INSERT ON grants FOR EACH ROW
  WHEN (NEW.kind = 'family') EXECUTE FUNCTION passavant_access_tokens_of_family_ended();
CREATE FUNCTION passavant_all_tokens_again() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  INSERT INTO ended_tokens (jti) VALUES ('');
  PERFORM pg_notify('passavant_ended_tokens', '');
  RETURN NULL;
END;
$$;
-- What may end any token. Not that somebody is the first to use a client that registered itself, nor that such a client is
-- forgotten: its tokens end by name, and strangers would have everything asked for again.
CREATE TRIGGER policy_changed_for_tokens AFTER UPDATE OF document ON directory FOR EACH ROW
  WHEN (NEW.kind IN ('trusted issuer', 'client', 'client host', 'resource') AND NEW.document <> OLD.document
    AND NOT (OLD.document LIKE '%"used":false%' AND NEW.document LIKE '%"used":true%'))
  EXECUTE FUNCTION passavant_all_tokens_again();
CREATE TRIGGER policy_gone_for_tokens AFTER DELETE ON directory FOR EACH ROW
  WHEN (OLD.kind IN ('trusted issuer', 'client', 'client host', 'resource', 'account')
    AND NOT (OLD.kind = 'client' AND OLD.document LIKE '%"registered":{%'))
  EXECUTE FUNCTION passavant_all_tokens_again();
CREATE TRIGGER keys_for_tokens AFTER UPDATE OR DELETE ON signing_keys FOR EACH ROW
  EXECUTE FUNCTION passavant_all_tokens_again();
CREATE TRIGGER keys_beside_for_tokens AFTER UPDATE OR DELETE ON signing_keys_beside FOR EACH ROW
  EXECUTE FUNCTION passavant_all_tokens_again();
