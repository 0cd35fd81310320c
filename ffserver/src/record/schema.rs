//! Whether the real table is what a record expects, asked at the start; what is missing is said as the
//! statements that add it.

use crate::db::{Db, DbError, Dialect, args};

use super::shape::{Kind, Shape};
use super::sql::{HOLDER, VERSION, add_column, create, is_name};

/// A table that is not as its record expects it.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The table, or columns of it, are missing. The statements make them.
    #[error("{what}; these statements make it:\n{}", statements.join(";\n") + ";")]
    Missing {
        /// What is missing.
        what: String,
        /// Statements of the database's dialect.
        statements: Vec<String>,
    },
    /// Columns hold something else.
    #[error("table `{table}`: {}", faults.join("; "))]
    Differs {
        /// The table.
        table: String,
        /// One sentence each.
        faults: Vec<String>,
    },
    /// The node has no such database.
    #[error(
        "table `{table}` is in the database `{database}`, which the node does not have: `databases.{database}` and \"db\": true"
    )]
    NoDatabase {
        /// The table.
        table: String,
        /// The database.
        database: String,
    },
    /// It could not be asked.
    #[error("table `{table}`")]
    Db {
        /// The table.
        table: String,
        /// Why.
        #[source]
        source: DbError,
    },
}

/// A column as the database has it.
struct Real {
    name: String,
    kind: String,
    nullable: bool,
    key: bool,
    collation: Option<String>,
}

/// The statements that make the table of a record in this database: for migrations, and for tests.
///
/// # Errors
/// The database does not answer.
pub async fn ddl<T: super::Record>(db: &Db) -> Result<Vec<String>, DbError> {
    Ok(create(&T::SHAPE, db.dialect(), nopad(db).await?))
}

/// Checks the real table against the shape.
pub(crate) async fn check(db: &Db, shape: &Shape) -> Result<(), SchemaError> {
    let table = || shape.table.to_owned();
    let asked = |source| SchemaError::Db { table: table(), source };
    let names = shape.columns.iter().map(|column| column.name).chain([shape.table]);
    let bad: Vec<_> =
        names.filter(|name| !is_name(name)).map(|name| format!("`{name}` is no name")).collect();
    if !bad.is_empty() {
        return Err(SchemaError::Differs { table: table(), faults: bad });
    }
    let nopad = nopad(db).await.map_err(asked)?;
    let real = columns(db, shape.table).await.map_err(asked)?;
    if real.is_empty() {
        let what = format!("there is no table `{}`", shape.table);
        return Err(SchemaError::Missing { what, statements: create(shape, db.dialect(), nopad) });
    }
    let wanted = shape.columns.iter().map(|column| column.name).chain([VERSION, HOLDER]);
    let missing: Vec<_> = wanted.filter(|name| !real.iter().any(|column| column.name == *name)).collect();
    if !missing.is_empty() {
        let what = format!("table `{}` has no {}", shape.table, missing.join(", "));
        let statements = missing.iter().map(|name| add_column(shape, db.dialect(), name, nopad)).collect();
        return Err(SchemaError::Missing { what, statements });
    }
    let faults = differences(db.dialect(), shape, &real);
    if faults.is_empty() { Ok(()) } else { Err(SchemaError::Differs { table: table(), faults }) }
}

fn differences(dialect: Dialect, shape: &Shape, real: &[Real]) -> Vec<String> {
    let mut faults = Vec::new();
    for (place, column) in shape.columns.iter().enumerate() {
        let Some(found) = real.iter().find(|real| real.name == column.name) else { continue };
        if !fits(column.kind, &found.kind) {
            faults.push(format!(
                "column `{}` is {} where {:?} is expected",
                column.name, found.kind, column.kind
            ));
        }
        if found.nullable && !column.nullable && place != shape.key {
            faults.push(format!("column `{}` may be NULL, and the field is no Option", column.name));
        }
        if place == shape.key && !found.key {
            faults.push(format!("column `{}` is the record's key and not the table's", column.name));
        }
        let exact = |collation: &str| {
            collation == "binary" || collation.ends_with("nopad_bin") || collation.ends_with("0900_bin")
        };
        if dialect == Dialect::MySql
            && place == shape.key
            && found.collation.as_deref().is_some_and(|collation| !exact(collation))
        {
            faults.push(format!(
                "column `{}` is the key and takes texts for equal that are not (collation {}): \
                 it must be one of …_nopad_bin or …_0900_bin",
                column.name,
                found.collation.as_deref().unwrap_or_default()
            ));
        }
    }
    faults
}

/// Whether a column of that type, as the database calls it, holds such values.
fn fits(kind: Kind, real: &str) -> bool {
    let real = real.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| real.contains(word));
    match kind {
        Kind::Bool => has(&["bool", "int"]),
        Kind::Int | Kind::Long | Kind::Unsigned => has(&["int"]) && !has(&["point", "interval"]),
        Kind::Float => has(&["double", "float", "real"]),
        Kind::Text => has(&["char", "text", "clob"]),
        Kind::Bytes => has(&["blob", "binary", "bytea"]),
    }
}

async fn columns(db: &Db, table: &str) -> Result<Vec<Real>, DbError> {
    let sql = match db.dialect() {
        Dialect::Sqlite => {
            "SELECT name, type, CASE WHEN \"notnull\" = 0 THEN 1 ELSE 0 END AS nullable, \
             CASE WHEN pk > 0 THEN 1 ELSE 0 END AS is_key, NULL AS collation FROM pragma_table_info(?)"
        }
        Dialect::MySql => {
            "SELECT c.column_name, CAST(c.column_type AS CHAR), c.is_nullable = 'YES', \
             EXISTS (SELECT 1 FROM information_schema.statistics s WHERE s.table_schema = c.table_schema \
             AND s.table_name = c.table_name AND s.column_name = c.column_name AND s.non_unique = 0 \
             AND s.seq_in_index = 1), c.collation_name FROM information_schema.columns c \
             WHERE c.table_schema = DATABASE() AND c.table_name = ?"
        }
        Dialect::Postgres => {
            "SELECT c.column_name::text, c.data_type::text, c.is_nullable = 'YES', \
             EXISTS (SELECT 1 FROM information_schema.key_column_usage k \
             JOIN information_schema.table_constraints t USING (constraint_schema, constraint_name) \
             WHERE k.table_schema = c.table_schema AND k.table_name = c.table_name \
             AND k.column_name = c.column_name AND t.constraint_type IN ('PRIMARY KEY', 'UNIQUE')), \
             c.collation_name::text FROM information_schema.columns c \
             WHERE c.table_schema = current_schema() AND c.table_name = ?"
        }
    };
    let rows = db.fetch_all(sql, &args![table]).await?;
    rows.iter()
        .map(|row| {
            Ok(Real {
                name: row.at(0)?,
                kind: row.at(1)?,
                nullable: row.at(2)?,
                key: row.at(3)?,
                collation: row.at(4)?,
            })
        })
        .collect()
}

/// The collation of MySQL's kind that tells apart all texts, also those that differ in spaces at the end.
async fn nopad(db: &Db) -> Result<&'static str, DbError> {
    if db.dialect() != Dialect::MySql {
        return Ok("");
    }
    let row = db.fetch_optional("SELECT VERSION()", &[]).await?;
    let version: String = row.map_or(Ok(String::new()), |row| row.at(0))?;
    Ok(if version.contains("MariaDB") { "utf8mb4_nopad_bin" } else { "utf8mb4_0900_bin" })
}
