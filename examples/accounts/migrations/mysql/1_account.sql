-- The key's collation tells apart all names; with MySQL 8 it is utf8mb4_0900_bin.
CREATE TABLE account (
  name VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL PRIMARY KEY,
  guild VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL,
  salt LONGBLOB NOT NULL,
  password LONGBLOB NOT NULL,
  coins BIGINT NOT NULL,
  logins INTEGER NOT NULL,
  version BIGINT NOT NULL DEFAULT 0,
  holder VARCHAR(160) CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT '',
  INDEX account_guild (guild)
);
