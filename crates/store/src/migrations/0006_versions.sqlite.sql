-- What a decision rests on, row by row. A row of a person (user, account, link, a client that registered itself, an
-- installation) has a version of its own; all other rows of the directory, and the signing keys, are policy, under one
-- generation. Both change with the row, whoever writes it: also a version that knows of neither.
ALTER TABLE directory ADD COLUMN version BIGINT NOT NULL DEFAULT 0;
ALTER TABLE installations ADD COLUMN version BIGINT NOT NULL DEFAULT 0;
INSERT INTO meta (key, value) VALUES ('policy', 1) ON CONFLICT DO NOTHING;
INSERT INTO meta (key, value) VALUES ('policy_mark', random()) ON CONFLICT DO NOTHING;
-- Who is in a group, and what leads to an account: looked up by what they name.
CREATE TABLE memberships (group_name TEXT NOT NULL, user_id TEXT NOT NULL, PRIMARY KEY (group_name, user_id));
CREATE INDEX memberships_user ON memberships (user_id);
CREATE TABLE account_links (id TEXT PRIMARY KEY, issuer TEXT NOT NULL, account TEXT NOT NULL);
CREATE INDEX account_links_issuer ON account_links (issuer);
CREATE INDEX account_links_account ON account_links (account);
INSERT OR IGNORE INTO memberships (group_name, user_id)
  SELECT held.value, directory.id FROM directory, json_each(CASE WHEN json_valid(directory.document) THEN directory.document ELSE '{}' END, '$.groups') held
  WHERE directory.kind = 'user' AND held.type = 'text';
INSERT OR IGNORE INTO account_links (id, issuer, account)
  SELECT id, json_extract(document, '$.link.issuer'), json_extract(document, '$.account') FROM directory
  WHERE kind = 'account link' AND json_valid(document)
  AND json_type(document, '$.link.issuer') = 'text' AND json_type(document, '$.account') = 'text';
CREATE TRIGGER directory_made AFTER INSERT ON directory BEGIN
  UPDATE directory SET version = random() WHERE kind = NEW.kind AND id = NEW.id;
END;
CREATE TRIGGER directory_changed AFTER UPDATE OF kind, id, name, document ON directory BEGIN
  UPDATE directory SET version = random() WHERE kind = NEW.kind AND id = NEW.id;
END;
CREATE TRIGGER policy_made AFTER INSERT ON directory
WHEN NEW.kind NOT IN ('user', 'account', 'account link', 'let in', 'administrator')
  AND NOT (NEW.kind = 'client' AND NEW.id LIKE 'dyn-%' AND instr(NEW.document, '"registered":{') > 0) BEGIN
  UPDATE meta SET value = value + 1 WHERE key = 'policy';
  UPDATE meta SET value = random() WHERE key = 'policy_mark';
END;
CREATE TRIGGER policy_changed AFTER UPDATE OF kind, id, name, document ON directory
WHEN NOT (NEW.kind IN ('user', 'account', 'account link', 'let in', 'administrator')
    OR (NEW.kind = 'client' AND NEW.id LIKE 'dyn-%' AND instr(NEW.document, '"registered":{') > 0))
  OR NOT (OLD.kind IN ('user', 'account', 'account link', 'let in', 'administrator')
    OR (OLD.kind = 'client' AND OLD.id LIKE 'dyn-%' AND instr(OLD.document, '"registered":{') > 0)) BEGIN
  UPDATE meta SET value = value + 1 WHERE key = 'policy';
  UPDATE meta SET value = random() WHERE key = 'policy_mark';
END;
CREATE TRIGGER policy_gone AFTER DELETE ON directory
WHEN OLD.kind NOT IN ('user', 'account', 'account link', 'let in', 'administrator')
  AND NOT (OLD.kind = 'client' AND OLD.id LIKE 'dyn-%' AND instr(OLD.document, '"registered":{') > 0) BEGIN
  UPDATE meta SET value = value + 1 WHERE key = 'policy';
  UPDATE meta SET value = random() WHERE key = 'policy_mark';
END;
CREATE TRIGGER installation_made AFTER INSERT ON installations BEGIN
  UPDATE installations SET version = random() WHERE id = NEW.id;
END;
CREATE TRIGGER installation_changed AFTER UPDATE OF user_id, document, revoked_at ON installations BEGIN
  UPDATE installations SET version = random() WHERE id = NEW.id;
END;
CREATE TRIGGER member_made AFTER INSERT ON directory WHEN NEW.kind = 'user' AND json_valid(NEW.document) BEGIN
  INSERT OR IGNORE INTO memberships (group_name, user_id)
    SELECT value, NEW.id FROM json_each(NEW.document, '$.groups') WHERE type = 'text';
END;
CREATE TRIGGER member_changed AFTER UPDATE OF document ON directory WHEN NEW.kind = 'user' AND json_valid(NEW.document) BEGIN
  DELETE FROM memberships WHERE user_id = NEW.id;
  INSERT OR IGNORE INTO memberships (group_name, user_id)
    SELECT value, NEW.id FROM json_each(NEW.document, '$.groups') WHERE type = 'text';
END;
CREATE TRIGGER member_gone AFTER DELETE ON directory WHEN OLD.kind = 'user' BEGIN
  DELETE FROM memberships WHERE user_id = OLD.id;
END;
CREATE TRIGGER link_made AFTER INSERT ON directory
WHEN NEW.kind = 'account link' AND json_valid(NEW.document) BEGIN
  INSERT OR REPLACE INTO account_links (id, issuer, account)
    SELECT NEW.id, json_extract(NEW.document, '$.link.issuer'), json_extract(NEW.document, '$.account')
    WHERE json_type(NEW.document, '$.link.issuer') = 'text' AND json_type(NEW.document, '$.account') = 'text';
END;
CREATE TRIGGER link_changed AFTER UPDATE OF document ON directory
WHEN NEW.kind = 'account link' AND json_valid(NEW.document) BEGIN
  INSERT OR REPLACE INTO account_links (id, issuer, account)
    SELECT NEW.id, json_extract(NEW.document, '$.link.issuer'), json_extract(NEW.document, '$.account')
    WHERE json_type(NEW.document, '$.link.issuer') = 'text' AND json_type(NEW.document, '$.account') = 'text';
END;
CREATE TRIGGER link_gone AFTER DELETE ON directory WHEN OLD.kind = 'account link' BEGIN
  DELETE FROM account_links WHERE id = OLD.id;
END;
CREATE TRIGGER key_made AFTER INSERT ON signing_keys BEGIN
  UPDATE meta SET value = value + 1 WHERE key = 'policy';
  UPDATE meta SET value = random() WHERE key = 'policy_mark';
END;
CREATE TRIGGER key_changed AFTER UPDATE ON signing_keys BEGIN
  UPDATE meta SET value = value + 1 WHERE key = 'policy';
  UPDATE meta SET value = random() WHERE key = 'policy_mark';
END;
CREATE TRIGGER key_gone AFTER DELETE ON signing_keys BEGIN
  UPDATE meta SET value = value + 1 WHERE key = 'policy';
  UPDATE meta SET value = random() WHERE key = 'policy_mark';
END;
CREATE TRIGGER key_beside_made AFTER INSERT ON signing_keys_beside BEGIN
  UPDATE meta SET value = value + 1 WHERE key = 'policy';
  UPDATE meta SET value = random() WHERE key = 'policy_mark';
END;
CREATE TRIGGER key_beside_changed AFTER UPDATE ON signing_keys_beside BEGIN
  UPDATE meta SET value = value + 1 WHERE key = 'policy';
  UPDATE meta SET value = random() WHERE key = 'policy_mark';
END;
CREATE TRIGGER key_beside_gone AFTER DELETE ON signing_keys_beside BEGIN
  UPDATE meta SET value = value + 1 WHERE key = 'policy';
  UPDATE meta SET value = random() WHERE key = 'policy_mark';
END;
