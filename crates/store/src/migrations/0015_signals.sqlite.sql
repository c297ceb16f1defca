-- What other parties are told of people while they are signed in (OpenID Shared Signals Framework): who listens, and what they
-- have not been told yet. The database writes an event whichever way, and whichever version, changes what it tells of.
-- `endpoint_url` is empty for a stream that is polled; `known` says whether the person had signed in to the listener then.
CREATE TABLE signal_streams (
  id TEXT PRIMARY KEY, client_id TEXT NOT NULL UNIQUE, events TEXT NOT NULL, endpoint_url TEXT NOT NULL, sealed TEXT NOT NULL,
  description TEXT NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '', created_at BIGINT NOT NULL,
  version BIGINT NOT NULL DEFAULT 0, asked_at BIGINT NOT NULL DEFAULT 0, next_at BIGINT NOT NULL DEFAULT 0, held_until BIGINT NOT NULL DEFAULT 0, holds BIGINT NOT NULL DEFAULT 0,
  tries BIGINT NOT NULL DEFAULT 0, failing_since BIGINT NOT NULL DEFAULT 0, failure TEXT NOT NULL DEFAULT '');
CREATE TABLE signals (
  position INTEGER PRIMARY KEY AUTOINCREMENT, jti TEXT NOT NULL UNIQUE DEFAULT (lower(hex(randomblob(16)))), stream TEXT NOT NULL, event TEXT NOT NULL,
  user_id TEXT NOT NULL, facts TEXT NOT NULL, known BIGINT NOT NULL, made_at BIGINT NOT NULL);
CREATE INDEX signals_stream ON signals (stream, position);
CREATE INDEX signals_made_at ON signals (made_at);
CREATE TABLE known_to_client (user_id TEXT NOT NULL, client_id TEXT NOT NULL, PRIMARY KEY (user_id, client_id));
CREATE TRIGGER signal_of_session AFTER UPDATE OF ended_at ON sessions WHEN OLD.ended_at IS NULL AND NEW.ended_at IS NOT NULL BEGIN
  INSERT INTO signals (jti, stream, event, user_id, facts, known, made_at)
    SELECT lower(hex(randomblob(16))), id, 'session-revoked', NEW.user_id, json_object('session', NEW.sid),
      (SELECT COUNT(*) FROM known_to_client k WHERE k.user_id = NEW.user_id AND k.client_id = signal_streams.client_id), NEW.ended_at
    FROM signal_streams WHERE status <> 'disabled';
END;
CREATE TRIGGER signal_of_standing AFTER UPDATE OF document ON directory
WHEN CASE WHEN NEW.kind = 'user' AND json_valid(OLD.document) AND json_valid(NEW.document)
  THEN COALESCE(json_extract(OLD.document, '$.disabled'), 0) IS NOT COALESCE(json_extract(NEW.document, '$.disabled'), 0) ELSE 0 END BEGIN
  INSERT INTO signals (jti, stream, event, user_id, facts, known, made_at)
    SELECT lower(hex(randomblob(16))), id,
      CASE WHEN json_extract(NEW.document, '$.disabled') THEN 'account-disabled' ELSE 'account-enabled' END, NEW.id, '{}',
      (SELECT COUNT(*) FROM known_to_client k WHERE k.user_id = NEW.id AND k.client_id = signal_streams.client_id), unixepoch()
    FROM signal_streams WHERE status <> 'disabled';
END;
CREATE TRIGGER signal_of_groups AFTER UPDATE OF document ON directory
WHEN CASE WHEN NEW.kind = 'user' AND json_valid(OLD.document) AND json_valid(NEW.document)
  THEN COALESCE(json_extract(OLD.document, '$.groups'), '[]') IS NOT COALESCE(json_extract(NEW.document, '$.groups'), '[]') ELSE 0 END BEGIN
  INSERT INTO signals (jti, stream, event, user_id, facts, known, made_at)
    SELECT lower(hex(randomblob(16))), id, 'token-claims-change', NEW.id,
      json_object('claims', json_object('groups', json(COALESCE(json_extract(NEW.document, '$.groups'), '[]')))),
      (SELECT COUNT(*) FROM known_to_client k WHERE k.user_id = NEW.id AND k.client_id = signal_streams.client_id), unixepoch()
    FROM signal_streams WHERE status <> 'disabled';
END;
CREATE TRIGGER signal_of_password AFTER UPDATE OF document ON directory
WHEN CASE WHEN NEW.kind = 'user' AND json_valid(OLD.document) AND json_valid(NEW.document)
  THEN json_extract(OLD.document, '$.password_hash') IS NOT json_extract(NEW.document, '$.password_hash') ELSE 0 END BEGIN
  INSERT INTO signals (jti, stream, event, user_id, facts, known, made_at)
    SELECT lower(hex(randomblob(16))), id, 'credential-change', NEW.id,
      json_object('credential_type', 'password', 'change_type', CASE
        WHEN json_extract(OLD.document, '$.password_hash') IS NULL THEN 'create'
        WHEN json_extract(NEW.document, '$.password_hash') IS NULL THEN 'delete' ELSE 'update' END),
      (SELECT COUNT(*) FROM known_to_client k WHERE k.user_id = NEW.id AND k.client_id = signal_streams.client_id), unixepoch()
    FROM signal_streams WHERE status <> 'disabled';
END;
CREATE TRIGGER signal_of_deletion AFTER DELETE ON directory WHEN OLD.kind = 'user' BEGIN
  INSERT INTO signals (jti, stream, event, user_id, facts, known, made_at)
    SELECT lower(hex(randomblob(16))), id, 'account-purged', OLD.id, '{}',
      (SELECT COUNT(*) FROM known_to_client k WHERE k.user_id = OLD.id AND k.client_id = signal_streams.client_id), unixepoch()
    FROM signal_streams WHERE status <> 'disabled';
END;
CREATE TRIGGER signal_of_new_passkey AFTER INSERT ON passkeys BEGIN
  INSERT INTO signals (jti, stream, event, user_id, facts, known, made_at)
    SELECT lower(hex(randomblob(16))), id, 'credential-change', NEW.user_id,
      json_object('credential_type', CASE WHEN NEW.document LIKE '%"usb"%' OR NEW.document LIKE '%"nfc"%' OR NEW.document LIKE '%"ble"%'
        THEN 'fido2-roaming' ELSE 'fido2-platform' END, 'change_type', 'create'),
      (SELECT COUNT(*) FROM known_to_client k WHERE k.user_id = NEW.user_id AND k.client_id = signal_streams.client_id), unixepoch()
    FROM signal_streams WHERE status <> 'disabled';
END;
CREATE TRIGGER signal_of_gone_passkey AFTER DELETE ON passkeys BEGIN
  INSERT INTO signals (jti, stream, event, user_id, facts, known, made_at)
    SELECT lower(hex(randomblob(16))), id, 'credential-change', OLD.user_id,
      json_object('credential_type', CASE WHEN OLD.document LIKE '%"usb"%' OR OLD.document LIKE '%"nfc"%' OR OLD.document LIKE '%"ble"%'
        THEN 'fido2-roaming' ELSE 'fido2-platform' END, 'change_type', 'delete'),
      (SELECT COUNT(*) FROM known_to_client k WHERE k.user_id = OLD.user_id AND k.client_id = signal_streams.client_id), unixepoch()
    FROM signal_streams WHERE status <> 'disabled';
END;
CREATE TRIGGER signal_of_new_totp AFTER INSERT ON totp WHEN NEW.confirmed_at <> 0 BEGIN
  INSERT INTO signals (jti, stream, event, user_id, facts, known, made_at)
    SELECT lower(hex(randomblob(16))), id, 'credential-change', NEW.user_id,
      json_object('credential_type', 'app', 'change_type', 'create'),
      (SELECT COUNT(*) FROM known_to_client k WHERE k.user_id = NEW.user_id AND k.client_id = signal_streams.client_id), unixepoch()
    FROM signal_streams WHERE status <> 'disabled';
END;
CREATE TRIGGER signal_of_gone_totp AFTER DELETE ON totp WHEN OLD.confirmed_at <> 0 BEGIN
  INSERT INTO signals (jti, stream, event, user_id, facts, known, made_at)
    SELECT lower(hex(randomblob(16))), id, 'credential-change', OLD.user_id,
      json_object('credential_type', 'app', 'change_type', 'delete'),
      (SELECT COUNT(*) FROM known_to_client k WHERE k.user_id = OLD.user_id AND k.client_id = signal_streams.client_id), unixepoch()
    FROM signal_streams WHERE status <> 'disabled';
END;
