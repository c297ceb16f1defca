-- What people are searched by, and who let in which client that registered itself: columns beside the documents, kept by
-- the database, so that versions that know of neither keep them too. A document that is no JSON leaves them as they were.
CREATE TABLE people (
  id TEXT PRIMARY KEY, email TEXT NOT NULL, display_name TEXT NOT NULL, disabled BIGINT NOT NULL
);
CREATE INDEX people_email ON people (email);
CREATE TABLE let_ins (client TEXT PRIMARY KEY, person TEXT NOT NULL);
CREATE INDEX let_ins_person ON let_ins (person);
INSERT INTO people (id, email, display_name, disabled)
  SELECT id,
    CASE json_type(document, '$.email') WHEN 'text' THEN json_extract(document, '$.email') ELSE '' END,
    CASE json_type(document, '$.display_name') WHEN 'text' THEN json_extract(document, '$.display_name') ELSE '' END,
    CASE json_type(document, '$.disabled') WHEN 'true' THEN 1 ELSE 0 END
  FROM (SELECT id, CASE WHEN json_valid(document) THEN document ELSE '{}' END AS document
    FROM directory WHERE kind = 'user');
INSERT INTO let_ins (client, person)
  SELECT id, json_extract(document, '$.person') FROM directory
  WHERE kind = 'let in' AND json_type(CASE WHEN json_valid(document) THEN document ELSE '{}' END, '$.person') = 'text';
CREATE TRIGGER person_made AFTER INSERT ON directory WHEN NEW.kind = 'user' AND json_valid(NEW.document) BEGIN
  INSERT OR REPLACE INTO people (id, email, display_name, disabled) SELECT NEW.id,
    CASE json_type(NEW.document, '$.email') WHEN 'text' THEN json_extract(NEW.document, '$.email') ELSE '' END,
    CASE json_type(NEW.document, '$.display_name') WHEN 'text' THEN json_extract(NEW.document, '$.display_name') ELSE '' END,
    CASE json_type(NEW.document, '$.disabled') WHEN 'true' THEN 1 ELSE 0 END;
END;
CREATE TRIGGER person_changed AFTER UPDATE OF document ON directory WHEN NEW.kind = 'user' AND json_valid(NEW.document) BEGIN
  INSERT OR REPLACE INTO people (id, email, display_name, disabled) SELECT NEW.id,
    CASE json_type(NEW.document, '$.email') WHEN 'text' THEN json_extract(NEW.document, '$.email') ELSE '' END,
    CASE json_type(NEW.document, '$.display_name') WHEN 'text' THEN json_extract(NEW.document, '$.display_name') ELSE '' END,
    CASE json_type(NEW.document, '$.disabled') WHEN 'true' THEN 1 ELSE 0 END;
END;
CREATE TRIGGER person_gone AFTER DELETE ON directory WHEN OLD.kind = 'user' BEGIN
  DELETE FROM people WHERE id = OLD.id;
END;
CREATE TRIGGER let_in_made AFTER INSERT ON directory WHEN NEW.kind = 'let in' AND json_valid(NEW.document) BEGIN
  INSERT OR REPLACE INTO let_ins (client, person)
    SELECT NEW.id, json_extract(NEW.document, '$.person') WHERE json_type(NEW.document, '$.person') = 'text';
END;
CREATE TRIGGER let_in_changed AFTER UPDATE OF document ON directory WHEN NEW.kind = 'let in' AND json_valid(NEW.document) BEGIN
  INSERT OR REPLACE INTO let_ins (client, person)
    SELECT NEW.id, json_extract(NEW.document, '$.person') WHERE json_type(NEW.document, '$.person') = 'text';
END;
CREATE TRIGGER let_in_gone AFTER DELETE ON directory WHEN OLD.kind = 'let in' BEGIN
  DELETE FROM let_ins WHERE client = OLD.id;
END;
