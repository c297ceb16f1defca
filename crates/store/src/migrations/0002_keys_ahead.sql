-- Keys that are published before they sign.
ALTER TABLE signing_keys ADD COLUMN signs_from BIGINT;
