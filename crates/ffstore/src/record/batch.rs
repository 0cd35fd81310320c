//! Batches: many rows changed by one statement, which makes writing behind cheaper than writing each row by itself. A
//! pure function from rows to a text and its arguments.

use std::fmt::Write as _;

use crate::db::{Dialect, Sql, Value};

use super::shape::{Kind, Shape};
use super::sql::{HOLDER, Names, VERSION};

/// The guard of a statement: what a row must be to be changed, beside having the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guard {
    /// Nobody holds it, and it has this version: `[version]`.
    Read,
    /// This holder, and any older version than this: `[holder, version]`.
    Held,
    /// This holder: `[holder]`.
    Holder,
}

impl Guard {
    /// Columns that are compared with a value of each row's.
    fn columns(self) -> &'static [(&'static str, &'static str, Kind)] {
        match self {
            Self::Read => &[(VERSION, "=", Kind::Long)],
            Self::Held => &[(HOLDER, "=", Kind::Text), (VERSION, "<", Kind::Long)],
            Self::Holder => &[(HOLDER, "=", Kind::Text)],
        }
    }
}

/// The columns that a statement sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Set {
    /// All columns but the key, and the version: `[columns without the key …, version]`.
    Columns,
    /// The holder: `[holder]`.
    Holder,
    /// Nobody holds it any more: `[]`.
    Nobody,
}

/// A row's part of a statement.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Part {
    pub(crate) key: Value,
    /// The arguments that the [`Guard`] wants.
    pub(crate) guard: Vec<Value>,
    /// The arguments that the [`Set`] wants.
    pub(crate) set: Vec<Value>,
}

/// A statement over rows of one table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Many<'a> {
    pub(crate) shape: &'a Shape,
    pub(crate) dialect: Dialect,
    pub(crate) guard: Guard,
    pub(crate) set: Set,
}

impl Many<'_> {
    /// Divides parts into runs that one statement takes: powers of two, so that there are few different texts and
    /// the databases' memories of statements are not flooded.
    pub(crate) fn runs<'p>(&self, mut parts: &'p [Part]) -> Vec<&'p [Part]> {
        /// Fewer than any of the databases takes: SQLite 32,766, the others 65,535.
        const ARGUMENTS_MAX: usize = 30_000;
        let (guards, sets) = (self.guard.columns().len(), self.sets().len());
        let (rows, arguments) = match self.dialect {
            // It compares each row with half of the others, see below.
            Dialect::MySql => (32, 1 + guards + 2 * sets),
            Dialect::Sqlite | Dialect::Postgres => (256, 1 + guards + sets),
        };
        let most = rows.min(ARGUMENTS_MAX / arguments).max(1);
        let mut runs = Vec::new();
        while !parts.is_empty() {
            let (run, rest) = parts.split_at(1 << parts.len().min(most).ilog2());
            runs.push(run);
            parts = rest;
        }
        runs
    }

    /// The statement that changes those rows of a run which are as they must be. The database says how many it
    /// has changed, not which.
    pub(crate) fn statement(&self, run: &[Part]) -> (Sql, Vec<Value>) {
        match self.dialect {
            Dialect::MySql => self.by_cases(run),
            Dialect::Sqlite | Dialect::Postgres => self.by_values(run),
        }
    }

    fn sets(&self) -> Vec<(&'static str, Kind)> {
        match self.set {
            Set::Columns => {
                let columns = self.shape.columns.iter().enumerate();
                let others = columns.filter(|(place, _)| *place != self.shape.key);
                others.map(|(_, column)| (column.name, column.kind)).chain([(VERSION, Kind::Long)]).collect()
            }
            Set::Holder => vec![(HOLDER, Kind::Text)],
            Set::Nobody => Vec::new(),
        }
    }

    /// `UPDATE … FROM (VALUES …)`.
    fn by_values(&self, run: &[Part]) -> (Sql, Vec<Value>) {
        let names = Names::of(self.shape, self.dialect);
        let (table, key, sets) = (names.quote(names.table), names.quoted_key(), self.sets());
        let guards = self.guard.columns();
        let mut list = "ffkey".to_owned();
        let mut marks = self.mark(self.shape.key_column().kind);
        let mut over = format!("{table}.{key} = ffrow.ffkey");
        for (place, (column, is, kind)) in guards.iter().enumerate() {
            let _ = write!(list, ", ffguard{place}");
            let _ = write!(marks, ", {}", self.mark(*kind));
            let _ = write!(over, " AND {table}.{column} {is} ffrow.ffguard{place}");
        }
        if self.guard == Guard::Read {
            let _ = write!(over, " AND {table}.{HOLDER} = ''");
        }
        let mut set = Vec::new();
        for (place, (column, kind)) in sets.iter().enumerate() {
            let _ = write!(list, ", ffset{place}");
            let _ = write!(marks, ", {}", self.mark(*kind));
            set.push(format!("{} = ffrow.ffset{place}", names.quote(column)));
        }
        if self.set == Set::Nobody {
            set.push(format!("{HOLDER} = ''"));
        }
        let (set, values) = (set.join(", "), vec![format!("({marks})"); run.len()].join(", "));
        let text = match self.dialect {
            Dialect::Sqlite => format!(
                "WITH ffrow ({list}) AS (VALUES {values}) UPDATE {table} SET {set} FROM ffrow WHERE {over}"
            ),
            _ => {
                format!("UPDATE {table} SET {set} FROM (VALUES {values}) AS ffrow ({list}) WHERE {over}")
            }
        };
        let args = run.iter().flat_map(|part| {
            std::iter::once(part.key.clone()).chain(part.guard.clone()).chain(part.set.clone())
        });
        (Sql::typed(text), args.collect())
    }

    fn mark(&self, kind: Kind) -> String {
        match self.dialect {
            // It asks for the types of an argument before it looks at where the argument goes.
            Dialect::Postgres => format!("CAST(? AS {})", postgres_kind(kind)),
            _ => "?".to_owned(),
        }
    }

    /// MariaDB and MySQL have no common form of the above that keeps the types of arguments: here each column is a
    /// `CASE` over the keys.
    fn by_cases(&self, run: &[Part]) -> (Sql, Vec<Value>) {
        let names = Names::of(self.shape, self.dialect);
        let key = names.quoted_key();
        let whens = " WHEN ? THEN ?".repeat(run.len());
        let mut args = Vec::new();
        let mut set = Vec::new();
        for (place, (column, _)) in self.sets().iter().enumerate() {
            set.push(format!("{} = CASE {key}{whens} END", names.quote(column)));
            for part in run {
                args.extend([part.key.clone(), part.set.get(place).cloned().unwrap_or(Value::Null)]);
            }
        }
        if self.set == Set::Nobody {
            set.push(format!("{HOLDER} = ''"));
        }
        let mut over = format!("({key} = ?");
        for (column, is, _) in self.guard.columns() {
            let _ = write!(over, " AND {column} {is} ?");
        }
        over.push_str(if self.guard == Guard::Read { " AND holder = '')" } else { ")" });
        let over = vec![over; run.len()].join(" OR ");
        for part in run {
            args.push(part.key.clone());
            args.extend(part.guard.iter().cloned());
        }
        let text = format!("UPDATE {} SET {} WHERE {over}", names.quote(names.table), set.join(", "));
        (Sql::typed(text), args)
    }
}

/// The type of arguments, which PostgreSQL makes the column's own when it assigns them.
fn postgres_kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Bool => "BOOLEAN",
        Kind::Int | Kind::Long | Kind::Unsigned => "BIGINT",
        Kind::Float => "DOUBLE PRECISION",
        Kind::Text => "TEXT",
        Kind::Bytes => "BYTEA",
    }
}

#[cfg(test)]
mod tests {
    use super::super::shape::Column;
    use super::*;

    const SHAPE: Shape = Shape {
        database: "",
        table: "order",
        columns: &[
            Column { name: "note", kind: Kind::Text, nullable: true },
            Column { name: "id", kind: Kind::Int, nullable: false },
        ],
        key: 1,
        owner: None,
        auto: false,
    };
    const DIALECTS: [Dialect; 3] = [Dialect::Sqlite, Dialect::MySql, Dialect::Postgres];

    fn many(dialect: Dialect, guard: Guard, set: Set) -> Many<'static> {
        Many { shape: &SHAPE, dialect, guard, set }
    }

    fn part(n: i64, many: &Many<'_>) -> Part {
        let holder = || Value::from(format!("me#{n}"));
        let guard = match many.guard {
            Guard::Read => vec![Value::Int(9 + n)],
            Guard::Held => vec![holder(), Value::Int(10 + n)],
            Guard::Holder => vec![holder()],
        };
        let set = match many.set {
            Set::Columns => vec![Value::from(format!("note {n}")), Value::Int(10 + n)],
            Set::Holder => vec![holder()],
            Set::Nobody => vec![],
        };
        Part { key: Value::Int(n), guard, set }
    }

    fn statement(many: Many<'_>, rows: i64) -> (String, Vec<Value>) {
        let parts: Vec<_> = (1..=rows).map(|n| part(n, &many)).collect();
        let (sql, args) = many.statement(&parts);
        (sql.text().to_owned(), args)
    }

    #[test]
    fn sqlite_and_postgres_take_the_rows_as_a_table_of_values() {
        let (text, args) = statement(many(Dialect::Sqlite, Guard::Held, Set::Columns), 2);
        assert_eq!(
            text,
            "WITH ffrow (ffkey, ffguard0, ffguard1, ffset0, ffset1) AS (VALUES (?, ?, ?, ?, ?), (?, ?, ?, ?, ?)) \
             UPDATE \"order\" SET \"note\" = ffrow.ffset0, \"version\" = ffrow.ffset1 FROM ffrow \
             WHERE \"order\".\"id\" = ffrow.ffkey AND \"order\".holder = ffrow.ffguard0 \
             AND \"order\".version < ffrow.ffguard1"
        );
        let text_of = |text: &str| Value::from(text.to_owned());
        let (me, note) = (text_of("me#1"), text_of("note 1"));
        assert_eq!(args[..6], [Value::Int(1), me, Value::Int(11), note, Value::Int(11), Value::Int(2)]);
        let (text, _) = statement(many(Dialect::Postgres, Guard::Read, Set::Holder), 1);
        assert_eq!(
            text,
            "UPDATE \"order\" SET \"holder\" = ffrow.ffset0 FROM (VALUES (CAST(? AS BIGINT), CAST(? AS BIGINT), \
             CAST(? AS TEXT))) AS ffrow (ffkey, ffguard0, ffset0) WHERE \"order\".\"id\" = ffrow.ffkey \
             AND \"order\".version = ffrow.ffguard0 AND \"order\".holder = ''"
        );
    }

    #[test]
    fn mysql_takes_them_as_cases() {
        let (text, args) = statement(many(Dialect::MySql, Guard::Read, Set::Columns), 2);
        assert_eq!(
            text,
            "UPDATE `order` SET `note` = CASE `id` WHEN ? THEN ? WHEN ? THEN ? END, \
             `version` = CASE `id` WHEN ? THEN ? WHEN ? THEN ? END \
             WHERE (`id` = ? AND version = ? AND holder = '') OR (`id` = ? AND version = ? AND holder = '')"
        );
        assert_eq!(args[8..], [1, 10, 2, 11].map(Value::Int));
        let (text, _) = statement(many(Dialect::MySql, Guard::Holder, Set::Nobody), 1);
        assert_eq!(text, "UPDATE `order` SET holder = '' WHERE (`id` = ? AND holder = ?)");
    }

    #[test]
    fn there_is_an_argument_for_every_mark_whatever_the_number_of_rows() {
        let forms = [
            (Guard::Held, Set::Columns),
            (Guard::Read, Set::Columns),
            (Guard::Read, Set::Holder),
            (Guard::Holder, Set::Nobody),
        ];
        for (dialect, (guard, set)) in DIALECTS.into_iter().flat_map(|d| forms.map(|form| (d, form))) {
            let many = many(dialect, guard, set);
            let parts: Vec<_> = (0..700).map(|n| part(n, &many)).collect();
            let runs = many.runs(&parts);
            assert!(runs.iter().all(|run| run.len().is_power_of_two()));
            assert_eq!(runs.concat(), parts, "each once, in order");
            for run in runs {
                let (sql, args) = many.statement(run);
                assert_eq!(sql.text().matches('?').count(), args.len(), "{dialect:?} {guard:?} {set:?}");
            }
        }
    }

    #[test]
    fn a_run_is_within_the_bound_of_arguments() {
        const WIDE: Shape = Shape {
            columns: &[Column { name: "c", kind: Kind::Long, nullable: false }; 900],
            key: 0,
            ..SHAPE
        };
        let parts = vec![Part { key: Value::Int(1), guard: vec![], set: vec![] }; 100];
        for (dialect, longest) in [(Dialect::Sqlite, 32), (Dialect::MySql, 16)] {
            let many = Many { shape: &WIDE, dialect, guard: Guard::Held, set: Set::Columns };
            assert_eq!(many.runs(&parts)[0].len(), longest);
        }
    }
}
