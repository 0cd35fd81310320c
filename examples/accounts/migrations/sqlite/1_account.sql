CREATE TABLE account (
  name TEXT NOT NULL PRIMARY KEY,
  guild TEXT NOT NULL,
  salt BLOB NOT NULL,
  password BLOB NOT NULL,
  coins BIGINT NOT NULL,
  logins INTEGER NOT NULL,
  version BIGINT NOT NULL DEFAULT 0,
  holder VARCHAR(160) NOT NULL DEFAULT ''
);
CREATE INDEX account_guild ON account (guild);
