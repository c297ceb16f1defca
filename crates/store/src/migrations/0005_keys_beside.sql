-- Keys of an algorithm that an earlier version does not know. It would take one beside its own for the key that signs, and stop; here it does not see them.
CREATE TABLE IF NOT EXISTS signing_keys_beside (
  kid TEXT PRIMARY KEY, algorithm TEXT NOT NULL, sealed TEXT NOT NULL,
  created_at BIGINT NOT NULL, retired_at BIGINT, signs_from BIGINT);
