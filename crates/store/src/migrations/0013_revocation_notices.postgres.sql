-- What other parties are to be told when access ends. An ID-JAG on record says what it opens, so that it can be looked at
-- again when the policy or a person changes; `told_of` says who knows of a person; the database writes a notice for each
-- ID-JAG that ends while tokens of it may live, whichever way and whichever version ends it.
ALTER TABLE grants ADD COLUMN resources TEXT;
ALTER TABLE grants ADD COLUMN scopes TEXT;
CREATE INDEX grants_user ON grants (user_id);
CREATE TABLE told_of (user_id TEXT NOT NULL, party TEXT NOT NULL, PRIMARY KEY (user_id, party));
-- An empty `id_jag`: everything that the party issued to that person.
CREATE TABLE revocation_notices (
  id TEXT PRIMARY KEY, party TEXT NOT NULL, user_id TEXT NOT NULL, id_jag TEXT NOT NULL,
  made_at BIGINT NOT NULL, next_at BIGINT NOT NULL, tries BIGINT NOT NULL DEFAULT 0);
CREATE INDEX revocation_notices_next ON revocation_notices (next_at);
CREATE INDEX revocation_notices_party ON revocation_notices (party, tries, next_at);
-- People whose access is to be decided anew; the empty name means everyone.
CREATE TABLE reconsidered (user_id TEXT PRIMARY KEY, mark BIGINT NOT NULL);
-- At an authorization server: what an issuer issued about a person until then opens nothing any more.
CREATE TABLE ended_subjects (
  issuer TEXT NOT NULL, subject TEXT NOT NULL, ended_at BIGINT NOT NULL, forget_after BIGINT NOT NULL,
  PRIMARY KEY (issuer, subject));
CREATE INDEX logout_notices_client ON logout_notices (client_id, tries, next_at);
CREATE FUNCTION passavant_id_jags_of_session_ended() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  UPDATE grants SET revoked_at = NEW.ended_at
    WHERE user_id = NEW.user_id AND lineage = NEW.sid AND kind = 'id_jag' AND revoked_at IS NULL;
  RETURN NULL;
END;
$$;
CREATE TRIGGER id_jags_of_session_ended AFTER UPDATE OF ended_at ON sessions
  FOR EACH ROW WHEN (OLD.ended_at IS NULL AND NEW.ended_at IS NOT NULL) EXECUTE FUNCTION passavant_id_jags_of_session_ended();
CREATE FUNCTION passavant_id_jag_ended() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  INSERT INTO revocation_notices (id, party, user_id, id_jag, made_at, next_at)
    VALUES (replace(gen_random_uuid()::text, '-', ''), NEW.party, NEW.user_id, NEW.jti, NEW.revoked_at, NEW.revoked_at);
  RETURN NULL;
END;
$$;
CREATE TRIGGER id_jag_ended AFTER UPDATE OF revoked_at ON grants
  FOR EACH ROW WHEN (OLD.revoked_at IS NULL AND NEW.revoked_at IS NOT NULL AND NEW.kind = 'id_jag')
  EXECUTE FUNCTION passavant_id_jag_ended();
CREATE FUNCTION passavant_reconsidered() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  IF OLD.kind = 'user' THEN
    INSERT INTO reconsidered (user_id, mark) SELECT OLD.id, {random}
      WHERE EXISTS (SELECT 1 FROM grants WHERE user_id = OLD.id AND kind = 'id_jag' AND revoked_at IS NULL)
      ON CONFLICT (user_id) DO UPDATE SET mark = EXCLUDED.mark;
  ELSIF OLD.kind IN ('authorization server', 'resource', 'connection', 'client') THEN
    INSERT INTO reconsidered (user_id, mark) VALUES ('', {random})
      ON CONFLICT (user_id) DO UPDATE SET mark = EXCLUDED.mark;
  END IF;
  RETURN NULL;
END;
$$;
CREATE TRIGGER reconsidered AFTER DELETE OR UPDATE OF document ON directory
  FOR EACH ROW EXECUTE FUNCTION passavant_reconsidered();
CREATE FUNCTION passavant_installation_reconsidered() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  INSERT INTO reconsidered (user_id, mark) VALUES (NEW.user_id, {random})
    ON CONFLICT (user_id) DO UPDATE SET mark = EXCLUDED.mark;
  RETURN NULL;
END;
$$;
CREATE TRIGGER installation_reconsidered AFTER UPDATE OF revoked_at ON installations
  FOR EACH ROW WHEN (OLD.revoked_at IS NULL AND NEW.revoked_at IS NOT NULL) EXECUTE FUNCTION passavant_installation_reconsidered();
