//! The check of a schema: whether the real table is what a record expects, asked at the start. What is missing is told
//! as the statements that add it.

use crate::db::{Db, DbError, Dialect, Sql, Value};

use super::shape::{Kind, Shape};
use super::sql::{HOLDER, HOLDER_CHARS, Unfit, VERSION, add_column, create_table, is_name, mend};

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
    /// Columns hold something else, or less than is needed.
    #[error("table `{table}`: {}{}", faults.join("; "), mended_by(statements))]
    Differs {
        /// The table.
        table: String,
        /// One sentence each.
        faults: Vec<String>,
        /// Statements of the database's dialect that mend the key and the framework's columns.
        statements: Vec<String>,
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
    /// The database could not be asked.
    #[error("table `{table}`")]
    Db {
        /// The table.
        table: String,
        /// Why.
        #[source]
        source: DbError,
    },
}

fn mended_by(statements: &[String]) -> String {
    if statements.is_empty() {
        return String::new();
    }
    format!("; these statements mend it:\n{};", statements.join(";\n"))
}

/// A column as the database has it.
#[derive(Debug, Clone)]
struct Real {
    name: String,
    kind: String,
    nullable: bool,
    /// The database takes each of its values once: it is by itself the primary key, or unique.
    key: bool,
    collation: Option<String>,
    default: Option<String>,
    /// How many characters it takes at most, when that is bounded.
    chars: Option<i64>,
}

/// The statements that make the table of a record in this database: for migrations, and for tests.
///
/// # Errors
/// The database does not answer.
pub async fn ddl<T: super::Record>(db: &Db) -> Result<Vec<String>, DbError> {
    Ok(create_table(&T::SHAPE, db.dialect(), nopad(db).await?))
}

/// Makes the table of a record in this database, with the statements of [`ddl`]: for tests.
///
/// # Errors
/// The database does not answer, or has such a table already.
pub async fn create<T: super::Record>(db: &Db) -> Result<(), DbError> {
    for statement in ddl::<T>(db).await? {
        db.execute(Sql::trusted(statement), &[]).await?;
    }
    Ok(())
}

/// As [`create`], of a shape.
pub(crate) async fn create_shape(db: &Db, shape: &Shape) -> Result<(), DbError> {
    for statement in create_table(shape, db.dialect(), nopad(db).await?) {
        db.execute(Sql::trusted(statement), &[]).await?;
    }
    Ok(())
}

/// Checks the real table against the shape.
pub async fn check(db: &Db, shape: &Shape) -> Result<(), SchemaError> {
    let table = || shape.table.to_owned();
    let asked = |source| SchemaError::Db { table: table(), source };
    let names = shape.columns.iter().map(|column| column.name).chain([shape.table]);
    let bad: Vec<_> =
        names.filter(|name| !is_name(name)).map(|name| format!("`{name}` is no name")).collect();
    if !bad.is_empty() {
        return Err(SchemaError::Differs { table: table(), faults: bad, statements: Vec::new() });
    }
    let nopad = nopad(db).await.map_err(asked)?;
    let real = columns(db, shape.table).await.map_err(asked)?;
    if real.is_empty() {
        let what = format!("there is no table `{}`", shape.table);
        return Err(SchemaError::Missing { what, statements: create_table(shape, db.dialect(), nopad) });
    }
    let wanted = shape.columns.iter().map(|column| column.name).chain([VERSION, HOLDER]);
    let missing: Vec<_> = wanted.filter(|name| !real.iter().any(|column| column.name == *name)).collect();
    if !missing.is_empty() {
        let what = format!("table `{}` has no {}", shape.table, missing.join(", "));
        let statements = missing.iter().map(|name| add_column(shape, db.dialect(), name, nopad)).collect();
        return Err(SchemaError::Missing { what, statements });
    }
    let mut faults = differences(db.dialect(), shape, &real);
    let own = own_faults(db.dialect(), shape, &real);
    let unfit: Vec<_> = own.iter().map(|(unfit, _)| *unfit).collect();
    faults.extend(own.into_iter().map(|(_, fault)| fault));
    if faults.is_empty() {
        return Ok(());
    }
    let statements = mend(shape, db.dialect(), nopad, &unfit);
    Err(SchemaError::Differs { table: table(), faults, statements })
}

/// What the framework needs of the key and of its own columns: else an update could change two rows, a version
/// could not grow, or a lease be cut or unseen.
fn own_faults(dialect: Dialect, shape: &Shape, real: &[Real]) -> Vec<(Unfit, String)> {
    let mut faults = Vec::new();
    let find = |name: &str| real.iter().find(|real| real.name == name);
    let key = shape.key_column().name;
    if find(key).is_some_and(|found| !found.key) {
        let fault = format!("column `{key}` is the record's key and not by itself the table's, or unique");
        faults.push((Unfit::Key, fault));
    }
    if let Some(found) = find(VERSION) {
        // SQLite keeps any integer in eight bytes.
        let wide = if dialect == Dialect::Sqlite { "int" } else { "bigint" };
        if !found.kind.to_ascii_lowercase().contains(wide) {
            let fault = format!("column `{VERSION}` is {} where 64 bits are needed", found.kind);
            faults.push((Unfit::Version, fault));
        } else if found.nullable {
            faults.push((Unfit::Version, format!("column `{VERSION}` may be NULL")));
        }
    }
    if let Some(found) = find(HOLDER) {
        let empty = |default: &str| default.is_empty() || default.starts_with("''") || default == "\"\"";
        let fault = if !fits(Kind::Text, &found.kind) {
            format!("column `{HOLDER}` is {} where text is expected", found.kind)
        } else if found.chars.is_some_and(|chars| chars < HOLDER_CHARS) {
            format!("column `{HOLDER}` is {} where {HOLDER_CHARS} characters are needed", found.kind)
        } else if found.nullable {
            format!("column `{HOLDER}` may be NULL")
        } else if !found.default.as_deref().is_some_and(empty) {
            format!("column `{HOLDER}` has no default ''")
        } else {
            return faults;
        };
        faults.push((Unfit::Holder, fault));
    }
    faults
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
    let (sql, times) = match db.dialect() {
        Dialect::Sqlite => (
            "SELECT c.name, c.type, CASE WHEN c.\"notnull\" = 0 THEN 1 ELSE 0 END, \
             CASE WHEN c.pk > 0 AND (SELECT COUNT(*) FROM pragma_table_info(?) WHERE pk > 0) = 1 THEN 1 \
             ELSE EXISTS (SELECT 1 FROM pragma_index_list(?) AS i WHERE i.\"unique\" = 1 AND i.partial = 0 \
             AND (SELECT COUNT(*) FROM pragma_index_info(i.name)) = 1 \
             AND (SELECT name FROM pragma_index_info(i.name)) = c.name) END, \
             NULL, c.dflt_value, NULL FROM pragma_table_info(?) AS c",
            3,
        ),
        Dialect::MySql => (
            "SELECT c.column_name, CAST(c.column_type AS CHAR), c.is_nullable = 'YES', \
             EXISTS (SELECT 1 FROM information_schema.statistics s WHERE s.table_schema = c.table_schema \
             AND s.table_name = c.table_name AND s.column_name = c.column_name AND s.non_unique = 0 \
             AND s.sub_part IS NULL AND (SELECT COUNT(*) FROM information_schema.statistics o \
             WHERE o.table_schema = s.table_schema AND o.table_name = s.table_name \
             AND o.index_name = s.index_name) = 1), \
             c.collation_name, CAST(c.column_default AS CHAR), \
             CAST(LEAST(c.character_maximum_length, 2147483647) AS SIGNED) \
             FROM information_schema.columns c WHERE c.table_schema = DATABASE() AND c.table_name = ?",
            1,
        ),
        Dialect::Postgres => (
            "SELECT c.column_name::text, c.data_type::text, c.is_nullable = 'YES', \
             EXISTS (SELECT 1 FROM pg_index i \
             JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] \
             WHERE i.indrelid = (quote_ident(c.table_schema) || '.' || quote_ident(c.table_name))::regclass \
             AND a.attname = c.column_name AND i.indisunique AND i.indisvalid AND i.indnkeyatts = 1 \
             AND i.indpred IS NULL), \
             c.collation_name::text, c.column_default::text, c.character_maximum_length::bigint \
             FROM information_schema.columns c \
             WHERE c.table_schema = current_schema() AND c.table_name = ?",
            1,
        ),
    };
    let rows = db.fetch_all(sql, &vec![Value::from(table); times]).await?;
    rows.iter()
        .map(|row| {
            Ok(Real {
                name: row.at(0)?,
                kind: row.at(1)?,
                nullable: row.at(2)?,
                key: row.at(3)?,
                collation: row.at(4)?,
                default: row.at(5)?,
                chars: row.at(6)?,
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
