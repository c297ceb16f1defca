-- What a decision rests on, row by row. A row of a person (user, account, link, a client that registered itself, an
-- installation) has a version of its own; all other rows of the directory, and the signing keys, are policy, under one
-- generation. Both change with the row, whoever writes it: also a version that knows of neither.
ALTER TABLE directory ADD COLUMN version BIGINT NOT NULL DEFAULT 0;
ALTER TABLE installations ADD COLUMN version BIGINT NOT NULL DEFAULT 0;
INSERT INTO meta (key, value) VALUES ('policy', 1) ON CONFLICT DO NOTHING;
INSERT INTO meta (key, value) VALUES ('policy_mark', {random}) ON CONFLICT DO NOTHING;
-- Who is in a group, and what leads to an account: looked up by what they name.
CREATE TABLE memberships (group_name TEXT NOT NULL, user_id TEXT NOT NULL, PRIMARY KEY (group_name, user_id));
CREATE INDEX memberships_user ON memberships (user_id);
CREATE TABLE account_links (id TEXT PRIMARY KEY, issuer TEXT NOT NULL, account TEXT NOT NULL);
CREATE INDEX account_links_issuer ON account_links (issuer);
CREATE INDEX account_links_account ON account_links (account);
-- A document that is no JSON names nobody anew; what it named before stays on record. One that this database cannot take
-- apart, and another reader can (a NUL), may name anything: the empty name says so.
CREATE FUNCTION passavant_named(kind TEXT, row_id TEXT, document TEXT) RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  IF kind = 'user' THEN
    DELETE FROM memberships held WHERE held.user_id = row_id AND json_typeof(document::json) IS NOT NULL;
    INSERT INTO memberships (group_name, user_id)
      SELECT named.name, row_id FROM json_array_elements_text(CASE json_typeof(document::json -> 'groups')
        WHEN 'array' THEN document::json -> 'groups'
        WHEN 'string' THEN json_build_array(document::json -> 'groups') ELSE '[]'::json END) AS named (name)
      WHERE named.name IS NOT NULL ON CONFLICT DO NOTHING;
  ELSIF kind = 'account link' THEN
    INSERT INTO account_links (id, issuer, account)
      VALUES (row_id, document::json #>> '{link,issuer}', document::json ->> 'account')
      ON CONFLICT (id) DO UPDATE SET issuer = EXCLUDED.issuer, account = EXCLUDED.account;
  END IF;
EXCEPTION WHEN OTHERS THEN
  IF kind = 'user' THEN
    BEGIN
      PERFORM document::json;
      INSERT INTO memberships (group_name, user_id) VALUES ('', row_id) ON CONFLICT DO NOTHING;
    EXCEPTION WHEN OTHERS THEN
      NULL;
    END;
  END IF;
END $$;
SELECT passavant_named(kind, id, document) FROM directory WHERE kind IN ('user', 'account link');
CREATE FUNCTION passavant_policy_changed() RETURNS void LANGUAGE sql SET search_path FROM CURRENT AS $$
  UPDATE meta SET value = value + 1 WHERE key = 'policy';
  UPDATE meta SET value = {random} WHERE key = 'policy_mark';
$$;
CREATE FUNCTION passavant_is_policy(kind TEXT, row_id TEXT, document TEXT) RETURNS BOOLEAN LANGUAGE sql IMMUTABLE SET search_path FROM CURRENT AS $$
  SELECT kind NOT IN ('user', 'account', 'account link', 'let in', 'administrator')
    AND NOT (kind = 'client' AND row_id LIKE 'dyn-%' AND position('"registered":{' IN document) > 0)
$$;
CREATE FUNCTION passavant_versioned() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  NEW.version := {random};
  RETURN NEW;
END $$;
CREATE FUNCTION passavant_directory_changed() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  IF TG_OP = 'DELETE' THEN
    DELETE FROM memberships WHERE OLD.kind = 'user' AND user_id = OLD.id;
    DELETE FROM account_links WHERE OLD.kind = 'account link' AND id = OLD.id;
    IF passavant_is_policy(OLD.kind, OLD.id, OLD.document) THEN PERFORM passavant_policy_changed(); END IF;
    RETURN NULL;
  END IF;
  PERFORM passavant_named(NEW.kind, NEW.id, NEW.document);
  IF passavant_is_policy(NEW.kind, NEW.id, NEW.document)
    OR (TG_OP = 'UPDATE' AND passavant_is_policy(OLD.kind, OLD.id, OLD.document)) THEN
    PERFORM passavant_policy_changed();
  END IF;
  RETURN NULL;
END $$;
CREATE FUNCTION passavant_keys_changed() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  PERFORM passavant_policy_changed();
  RETURN NULL;
END $$;
CREATE TRIGGER directory_version BEFORE INSERT OR UPDATE OF kind, id, name, document ON directory
  FOR EACH ROW EXECUTE FUNCTION passavant_versioned();
CREATE TRIGGER directory_changed AFTER INSERT OR DELETE OR UPDATE OF kind, id, name, document ON directory
  FOR EACH ROW EXECUTE FUNCTION passavant_directory_changed();
CREATE TRIGGER installation_version BEFORE INSERT OR UPDATE OF user_id, document, revoked_at ON installations
  FOR EACH ROW EXECUTE FUNCTION passavant_versioned();
CREATE TRIGGER keys_changed AFTER INSERT OR UPDATE OR DELETE ON signing_keys
  FOR EACH STATEMENT EXECUTE FUNCTION passavant_keys_changed();
CREATE TRIGGER keys_beside_changed AFTER INSERT OR UPDATE OR DELETE ON signing_keys_beside
  FOR EACH STATEMENT EXECUTE FUNCTION passavant_keys_changed();
