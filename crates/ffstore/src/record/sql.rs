//! The statements of a table, and the one that makes it: texts out of checked names, never out of values.

use std::fmt::Write as _;

use crate::db::{Dialect, Sql};

use super::shape::{Column, Kind, Shape};

/// The framework's columns: how often the row was written, and which journal holds its next state.
pub(crate) const VERSION: &str = "version";
pub(crate) const HOLDER: &str = "holder";
/// Longer than any holder's name: a node's name, its incarnation, and a random part.
pub(crate) const HOLDER_CHARS: i64 = 160;

/// Whether a name can stand in a statement: letters, digits and `_`, 63 of them at most, no digit first.
pub(crate) fn is_name(name: &str) -> bool {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    plain && (1..=63).contains(&name.len()) && !name.as_bytes()[0].is_ascii_digit()
}

/// A table as statements see it. Its names are checked by whoever makes it.
pub(crate) struct Names<'a> {
    pub(crate) dialect: Dialect,
    pub(crate) table: &'a str,
    pub(crate) key: &'a str,
    pub(crate) columns: Vec<&'a str>,
}

impl<'a> Names<'a> {
    pub(crate) fn of(shape: &'a Shape, dialect: Dialect) -> Self {
        let columns = shape.columns.iter().map(|column| column.name).collect();
        Self { dialect, table: shape.table, key: shape.key_column().name, columns }
    }

    pub(crate) fn quote(&self, name: &str) -> String {
        let quote = if self.dialect == Dialect::MySql { '`' } else { '"' };
        format!("{quote}{name}{quote}")
    }

    fn list(&self) -> String {
        let columns: Vec<_> = self.columns.iter().map(|name| self.quote(name)).collect();
        columns.join(", ")
    }

    fn select(&self) -> String {
        format!("SELECT {}, {VERSION}, {HOLDER} FROM {}", self.list(), self.quote(self.table))
    }

    /// `(key)` → the columns, version, holder.
    pub(crate) fn select_one(&self) -> Sql {
        Sql::trusted(format!("{} WHERE {} = ?", self.select(), self.quote(self.key)))
    }

    /// `(keys …)` → the same.
    pub(crate) fn select_many(&self, count: usize) -> Sql {
        let marks = vec!["?"; count].join(", ");
        Sql::trusted(format!("{} WHERE {} IN ({marks})", self.select(), self.quote(self.key)))
    }

    /// `(owner)` → the same, in the order of the keys.
    pub(crate) fn select_owned(&self, owner: &str) -> Sql {
        let (select, owner, key) = (self.select(), self.quote(owner), self.quote(self.key));
        Sql::trusted(format!("{select} WHERE {owner} = ? ORDER BY {key}"))
    }

    /// `(columns …, version)`; without the column `made`, which the database makes.
    pub(crate) fn insert(&self, made: Option<&str>) -> Sql {
        let columns = self.columns.iter().filter(|name| Some(**name) != made);
        let columns: Vec<_> = columns.map(|name| self.quote(name)).collect();
        let marks = vec!["?"; columns.len() + 1].join(", ");
        let table = self.quote(self.table);
        Sql::trusted(format!("INSERT INTO {table} ({}, {VERSION}) VALUES ({marks})", columns.join(", ")))
    }

    fn update(&self) -> String {
        let set: Vec<_> = self.columns.iter().map(|name| format!("{} = ?", self.quote(name))).collect();
        format!("UPDATE {} SET {}, {VERSION} = ?", self.quote(self.table), set.join(", "))
    }

    /// `(columns …, new version, key, old version)`: only over the version that was read, and only when
    /// nobody holds the row.
    pub(crate) fn update_read(&self) -> Sql {
        let (update, key) = (self.update(), self.quote(self.key));
        Sql::trusted(format!("{update} WHERE {key} = ? AND {VERSION} = ? AND {HOLDER} = ''"))
    }

    /// `(columns …, new version, key, holder, new version)`: only as the holder, and never over a newer one.
    pub(crate) fn update_held(&self) -> Sql {
        let (update, key) = (self.update(), self.quote(self.key));
        Sql::trusted(format!("{update} WHERE {key} = ? AND {HOLDER} = ? AND {VERSION} < ?"))
    }

    /// As [`update_held`](Self::update_held), and holds the row no longer.
    pub(crate) fn update_and_release(&self) -> Sql {
        let (update, key) = (self.update(), self.quote(self.key));
        Sql::trusted(format!("{update}, {HOLDER} = '' WHERE {key} = ? AND {HOLDER} = ? AND {VERSION} < ?"))
    }

    /// `(holder, keys …)`.
    pub(crate) fn release(&self, count: usize) -> Sql {
        let (table, key, marks) = (self.quote(self.table), self.quote(self.key), vec!["?"; count].join(", "));
        Sql::trusted(format!("UPDATE {table} SET {HOLDER} = '' WHERE {HOLDER} = ? AND {key} IN ({marks})"))
    }

    /// `(key)` → version, holder.
    pub(crate) fn peek(&self) -> Sql {
        let (table, key) = (self.quote(self.table), self.quote(self.key));
        Sql::trusted(format!("SELECT {VERSION}, {HOLDER} FROM {table} WHERE {key} = ?"))
    }

    /// `(keys …)` → key, holder.
    pub(crate) fn holders(&self, count: usize) -> Sql {
        let (table, key, marks) = (self.quote(self.table), self.quote(self.key), vec!["?"; count].join(", "));
        Sql::trusted(format!("SELECT {key}, {HOLDER} FROM {table} WHERE {key} IN ({marks})"))
    }

    /// `(a pattern of LIKE)` → key, holder.
    pub(crate) fn held_by(&self) -> Sql {
        let (table, key) = (self.quote(self.table), self.quote(self.key));
        Sql::trusted(format!("SELECT {key}, {HOLDER} FROM {table} WHERE {HOLDER} LIKE ?"))
    }

    /// `(key)`: only when nobody holds the row.
    pub(crate) fn delete(&self) -> Sql {
        let (table, key) = (self.quote(self.table), self.quote(self.key));
        Sql::trusted(format!("DELETE FROM {table} WHERE {key} = ? AND {HOLDER} = ''"))
    }

    pub(crate) fn quoted_key(&self) -> String {
        self.quote(self.key)
    }
}

/// The statements that make the table of a shape. `nopad` is a collation of MySQL's kind that tells apart
/// all texts.
pub(crate) fn create_table(shape: &Shape, dialect: Dialect, nopad: &str) -> Vec<String> {
    let names = Names::of(shape, dialect);
    let mut columns = Vec::new();
    for (place, column) in shape.columns.iter().enumerate() {
        columns.push(format!("  {}", definition(&names, shape, place, column, nopad)));
    }
    columns.extend(framework_columns(dialect).map(|(_, definition)| format!("  {definition}")));
    if !(shape.auto && dialect == Dialect::Sqlite) {
        columns.push(format!("  PRIMARY KEY ({})", names.quoted_key()));
    }
    let mut statements =
        vec![format!("CREATE TABLE {} (\n{}\n)", names.quote(shape.table), columns.join(",\n"))];
    if let Some(owner) = shape.owner.filter(|owner| *owner != shape.key) {
        let owner = shape.columns[owner].name;
        statements.push(format!(
            "CREATE INDEX {} ON {} ({})",
            names.quote(&format!("{}_{owner}", shape.table)),
            names.quote(shape.table),
            names.quote(owner)
        ));
    }
    statements
}

/// The statement that adds a column to the table.
pub(crate) fn add_column(shape: &Shape, dialect: Dialect, column: &str, nopad: &str) -> String {
    let names = Names::of(shape, dialect);
    let own = shape.columns.iter().position(|known| known.name == column);
    let definition = match own {
        Some(place) => {
            let mut text = definition(&names, shape, place, &shape.columns[place], nopad);
            if !shape.columns[place].nullable {
                let _ = write!(text, " DEFAULT {}", zero(shape.columns[place].kind, dialect));
            }
            text
        }
        None => framework_columns(dialect)
            .find(|(name, _)| *name == column)
            .map(|(_, definition)| definition)
            .unwrap_or_default(),
    };
    format!("ALTER TABLE {} ADD COLUMN {definition}", names.quote(shape.table))
}

/// A part of a table that is not as the framework needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// The record's key is not unique by itself.
    Key,
    /// The column of the version.
    Version,
    /// The column of the holder.
    Holder,
}

/// The statements that mend a table.
pub(crate) fn mend(shape: &Shape, dialect: Dialect, nopad: &str, unfit: &[Unfit]) -> Vec<String> {
    // SQLite changes no columns, and makes keys only of a primary one: the table is made anew, and the old one kept.
    let anew = |unfit: &Unfit| *unfit != Unfit::Key || shape.auto;
    if dialect == Dialect::Sqlite && unfit.iter().any(anew) {
        return make_anew(shape, nopad);
    }
    unfit.iter().flat_map(|unfit| mend_one(shape, dialect, *unfit)).collect()
}

fn mend_one(shape: &Shape, dialect: Dialect, unfit: Unfit) -> Vec<String> {
    let names = Names::of(shape, dialect);
    let (table, key) = (names.quote(shape.table), names.quoted_key());
    let (name, empty) = match unfit {
        Unfit::Key => {
            let index = names.quote(&format!("{}_{}", shape.table, shape.key_column().name));
            return vec![format!("CREATE UNIQUE INDEX {index} ON {table} ({key})")];
        }
        Unfit::Version => (VERSION, "0"),
        Unfit::Holder => (HOLDER, "''"),
    };
    let definition = framework_columns(dialect).find(|(column, _)| *column == name);
    let definition = definition.map(|(_, definition)| definition).unwrap_or_default();
    let filled = format!("UPDATE {table} SET {name} = {empty} WHERE {name} IS NULL");
    let changed = match dialect {
        Dialect::Postgres => {
            let kind = if name == VERSION { "BIGINT".to_owned() } else { format!("VARCHAR({HOLDER_CHARS})") };
            format!(
                "ALTER TABLE {table} ALTER COLUMN {name} TYPE {kind}, ALTER COLUMN {name} SET NOT NULL, \
                 ALTER COLUMN {name} SET DEFAULT {empty}"
            )
        }
        _ => format!("ALTER TABLE {table} MODIFY COLUMN {definition}"),
    };
    vec![filled, changed]
}

/// With the record's columns; whatever else the table has stays in the old one.
fn make_anew(shape: &Shape, nopad: &str) -> Vec<String> {
    let names = Names::of(shape, Dialect::Sqlite);
    let (table, before) = (names.quote(shape.table), names.quote(&format!("{}_before", shape.table)));
    let mut statements = vec![format!("ALTER TABLE {table} RENAME TO {before}")];
    if let Some(owner) = shape.owner {
        let index = names.quote(&format!("{}_{}", shape.table, shape.columns[owner].name));
        statements.push(format!("DROP INDEX IF EXISTS {index}"));
    }
    statements.extend(create_table(shape, Dialect::Sqlite, nopad));
    let columns = names.list();
    statements.push(format!(
        "INSERT INTO {table} ({columns}, {VERSION}, {HOLDER}) \
         SELECT {columns}, COALESCE({VERSION}, 0), COALESCE({HOLDER}, '') FROM {before}"
    ));
    statements
}

fn zero(kind: Kind, dialect: Dialect) -> &'static str {
    match (kind, dialect) {
        (Kind::Bool, Dialect::Postgres) => "FALSE",
        (Kind::Text | Kind::Bytes, _) => "''",
        _ => "0",
    }
}

fn framework_columns(dialect: Dialect) -> impl Iterator<Item = (&'static str, String)> {
    let holder = match dialect {
        // Compared byte by byte, and of one byte a character.
        Dialect::MySql => format!("VARCHAR({HOLDER_CHARS}) CHARACTER SET ascii COLLATE ascii_bin"),
        _ => format!("VARCHAR({HOLDER_CHARS})"),
    };
    [
        (VERSION, format!("{VERSION} BIGINT NOT NULL DEFAULT 0")),
        (HOLDER, format!("{HOLDER} {holder} NOT NULL DEFAULT ''")),
    ]
    .into_iter()
}

fn definition(names: &Names<'_>, shape: &Shape, place: usize, column: &Column, nopad: &str) -> String {
    let name = names.quote(column.name);
    let indexed = place == shape.key || Some(place) == shape.owner;
    if shape.auto && place == shape.key {
        return match names.dialect {
            // AUTOINCREMENT: the key of a deleted row is not given again.
            Dialect::Sqlite => format!("{name} INTEGER PRIMARY KEY AUTOINCREMENT"),
            Dialect::MySql => format!("{name} {} NOT NULL AUTO_INCREMENT", kind_name(column.kind, false, "")),
            Dialect::Postgres => format!(
                "{name} {} GENERATED BY DEFAULT AS IDENTITY",
                kind_name(column.kind, false, "").replace("DOUBLE", "DOUBLE PRECISION")
            ),
        };
    }
    let kind = match names.dialect {
        Dialect::MySql => kind_name(column.kind, indexed, nopad),
        Dialect::Sqlite => match column.kind {
            Kind::Bytes => "BLOB".into(),
            Kind::Text => "TEXT".into(),
            kind => kind_name(kind, false, ""),
        },
        Dialect::Postgres => match column.kind {
            Kind::Bytes => "BYTEA".into(),
            Kind::Text => "TEXT".into(),
            Kind::Float => "DOUBLE PRECISION".into(),
            kind => kind_name(kind, false, ""),
        },
    };
    format!("{name} {kind}{}", if column.nullable { "" } else { " NOT NULL" })
}

/// MySQL's name of a kind.
fn kind_name(kind: Kind, indexed: bool, nopad: &str) -> String {
    match (kind, indexed) {
        (Kind::Bool, _) => "BOOLEAN".into(),
        (Kind::Int, _) => "INTEGER".into(),
        (Kind::Long | Kind::Unsigned, _) => "BIGINT".into(),
        (Kind::Float, _) => "DOUBLE".into(),
        // What is in an index has a bound, and is compared exactly: case, accents, spaces at the end.
        (Kind::Text, true) => format!("VARCHAR(255) CHARACTER SET utf8mb4 COLLATE {nopad}"),
        (Kind::Bytes, true) => "VARBINARY(255)".into(),
        (Kind::Text, false) => "LONGTEXT CHARACTER SET utf8mb4".into(),
        (Kind::Bytes, false) => "LONGBLOB".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_stand_in_statements() {
        for good in ["account", "_a1", "Account2"] {
            assert!(is_name(good), "{good}");
        }
        let long = "x".repeat(64);
        for bad in ["", "1a", "a b", "a\"b", "a`b", "a;b", "ä", "a.b", long.as_str()] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    const SHAPE: Shape = Shape {
        database: "",
        table: "order",
        columns: &[
            Column { name: "id", kind: Kind::Long, nullable: false },
            Column { name: "guild", kind: Kind::Text, nullable: false },
            Column { name: "note", kind: Kind::Bytes, nullable: true },
        ],
        key: 0,
        owner: Some(1),
        auto: true,
    };

    #[test]
    fn names_are_quoted_as_the_dialect_wants_it() {
        let of = |dialect| format!("{:?}", Names::of(&SHAPE, dialect).update_read());
        assert!(of(Dialect::MySql).contains("UPDATE `order` SET `id` = ?, `guild` = ?"));
        assert!(of(Dialect::Postgres).contains(r#"UPDATE \"order\" SET \"id\" = ?"#));
    }

    #[test]
    fn a_table_is_made_with_the_frameworks_columns_and_an_index_for_the_owner() {
        let statements = create_table(&SHAPE, Dialect::Sqlite, "");
        assert_eq!(
            statements[0],
            "CREATE TABLE \"order\" (\n  \"id\" INTEGER PRIMARY KEY AUTOINCREMENT,\n  \"guild\" TEXT NOT NULL,\n  \
             \"note\" BLOB,\n  version BIGINT NOT NULL DEFAULT 0,\n  holder VARCHAR(160) NOT NULL DEFAULT ''\n)"
        );
        assert_eq!(statements[1], "CREATE INDEX \"order_guild\" ON \"order\" (\"guild\")");
        let mysql = create_table(&SHAPE, Dialect::MySql, "utf8mb4_nopad_bin").join(";");
        assert!(mysql.contains("`id` BIGINT NOT NULL AUTO_INCREMENT"), "{mysql}");
        assert!(
            mysql.contains("`guild` VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL")
        );
        assert!(mysql.contains("PRIMARY KEY (`id`)"));
    }

    #[test]
    fn a_missing_column_is_added_with_what_old_rows_have() {
        assert_eq!(
            add_column(&SHAPE, Dialect::Postgres, "guild", ""),
            "ALTER TABLE \"order\" ADD COLUMN \"guild\" TEXT NOT NULL DEFAULT ''"
        );
        assert_eq!(
            add_column(&SHAPE, Dialect::Sqlite, VERSION, ""),
            "ALTER TABLE \"order\" ADD COLUMN version BIGINT NOT NULL DEFAULT 0"
        );
    }
}
