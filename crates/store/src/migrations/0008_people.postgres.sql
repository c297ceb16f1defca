-- What people are searched by, and who let in which client that registered itself: columns beside the documents, kept by
-- the database, so that versions that know of neither keep them too. A document that is no JSON leaves them as they were.
CREATE TABLE people (
  id TEXT PRIMARY KEY, email TEXT NOT NULL, display_name TEXT NOT NULL, disabled BIGINT NOT NULL
);
CREATE INDEX people_email ON people (email);
CREATE TABLE let_ins (client TEXT PRIMARY KEY, person TEXT NOT NULL);
CREATE INDEX let_ins_person ON let_ins (person);
CREATE FUNCTION passavant_text(document TEXT, member TEXT) RETURNS TEXT LANGUAGE sql IMMUTABLE SET search_path FROM CURRENT AS $$
  SELECT CASE json_typeof(document::json -> member) WHEN 'string' THEN document::json ->> member ELSE '' END
$$;
CREATE FUNCTION passavant_person(kind TEXT, row_id TEXT, document TEXT) RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  IF kind = 'user' THEN
    INSERT INTO people (id, email, display_name, disabled)
      VALUES (row_id, COALESCE(passavant_text(document, 'email'), ''), COALESCE(passavant_text(document, 'display_name'), ''),
        CASE document::json ->> 'disabled' WHEN 'true' THEN 1 ELSE 0 END)
      ON CONFLICT (id) DO UPDATE SET email = EXCLUDED.email, display_name = EXCLUDED.display_name,
        disabled = EXCLUDED.disabled;
  ELSIF kind = 'let in' AND json_typeof(document::json -> 'person') = 'string' THEN
    INSERT INTO let_ins (client, person) VALUES (row_id, document::json ->> 'person')
      ON CONFLICT (client) DO UPDATE SET person = EXCLUDED.person;
  END IF;
EXCEPTION WHEN OTHERS THEN
  NULL;
END $$;
SELECT passavant_person(kind, id, document) FROM directory WHERE kind IN ('user', 'let in');
CREATE FUNCTION passavant_person_changed() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  IF TG_OP = 'DELETE' THEN
    DELETE FROM people WHERE OLD.kind = 'user' AND id = OLD.id;
    DELETE FROM let_ins WHERE OLD.kind = 'let in' AND client = OLD.id;
  ELSE
    PERFORM passavant_person(NEW.kind, NEW.id, NEW.document);
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER person_changed AFTER INSERT OR DELETE OR UPDATE OF kind, id, document ON directory
  FOR EACH ROW EXECUTE FUNCTION passavant_person_changed();
