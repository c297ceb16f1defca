-- When the assertion was issued that an access token was issued for: a revocation that comes late ends what was there then.
ALTER TABLE grants ADD COLUMN asserted_at BIGINT;
-- Access tokens that have ended, for the guards before MCP servers; an empty `jti` says that all are to be asked about again.
-- The database writes them, whichever way and whichever version ends them. `position` is the transaction: who has read up to the
-- oldest one that was under way has missed none, whatever order they commit in.
CREATE TABLE ended_tokens (
  position BIGINT NOT NULL DEFAULT (pg_current_xact_id()::text::bigint), jti TEXT NOT NULL, made_at BIGINT NOT NULL);
CREATE INDEX ended_tokens_position ON ended_tokens (position);
CREATE INDEX ended_tokens_made_at ON ended_tokens (made_at);
CREATE FUNCTION passavant_access_token_ended() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  INSERT INTO ended_tokens (jti, made_at) VALUES (NEW.jti, NEW.revoked_at);
  PERFORM pg_notify('passavant_ended_tokens', '');
  RETURN NULL;
END;
$$;
CREATE TRIGGER access_token_ended AFTER UPDATE OF revoked_at ON grants FOR EACH ROW
  WHEN (OLD.revoked_at IS NULL AND NEW.revoked_at IS NOT NULL AND NEW.kind = 'access_token')
  EXECUTE FUNCTION passavant_access_token_ended();
CREATE FUNCTION passavant_access_tokens_of_family_ended() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  INSERT INTO ended_tokens (jti, made_at) SELECT jti, NEW.revoked_at FROM grants
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
  INSERT INTO ended_tokens (jti, made_at) VALUES ('', extract(epoch FROM clock_timestamp())::bigint);
  PERFORM pg_notify('passavant_ended_tokens', '');
  RETURN NULL;
END;
$$;
CREATE TRIGGER policy_changed_for_tokens AFTER UPDATE OF document ON directory FOR EACH ROW
  WHEN (NEW.kind IN ('trusted issuer', 'client', 'client host', 'resource') AND NEW.document <> OLD.document)
  EXECUTE FUNCTION passavant_all_tokens_again();
CREATE TRIGGER policy_gone_for_tokens AFTER DELETE ON directory FOR EACH ROW
  WHEN (OLD.kind IN ('trusted issuer', 'client', 'client host', 'resource', 'account', 'let in'))
  EXECUTE FUNCTION passavant_all_tokens_again();
CREATE TRIGGER keys_for_tokens AFTER UPDATE OR DELETE ON signing_keys FOR EACH ROW
  EXECUTE FUNCTION passavant_all_tokens_again();
CREATE TRIGGER keys_beside_for_tokens AFTER UPDATE OR DELETE ON signing_keys_beside FOR EACH ROW
  EXECUTE FUNCTION passavant_all_tokens_again();
