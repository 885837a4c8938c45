//! What stands in the file, by versions: a step leads from each to the next, and a file from the future is left alone.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use rustix::fs::OFlags;

use crate::error::StoreError;
use crate::store::Durability;

/// To change what is stored: a file, and a line here. What stands above is never edited.
const MIGRATIONS: &[&str] = &[include_str!("schema/0001.sql")];
/// Marks the file as ours: `BJAR`.
const APPLICATION: i64 = 0x424a_4152;
/// How long to wait for the other process's moment of exclusive access, in which it opens or closes the file.
const PATIENCE: Duration = Duration::from_secs(10);
/// The journal is cut back to this many bytes whenever it begins anew.
const JOURNAL_BYTES: i64 = 64 * 1024 * 1024;
/// What the journal grows to before SQLite begins it anew: a thousand pages with their heads, and what one transaction may go beyond.
const JOURNAL_ROOM: u64 = 4_500_000;

/// Opens for writing, and brings the file up to date.
pub(crate) fn open_writer(path: &Path, durability: Durability) -> Result<Connection, StoreError> {
    let mut connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    check(&connection, path)?;
    let set = connection
        .pragma_update(None, "journal_mode", "wal")
        .and_then(|()| connection.pragma_update(None, "synchronous", durability.pragma()))
        .and_then(|()| connection.pragma_update(None, "journal_size_limit", JOURNAL_BYTES));
    set.map_err(StoreError::database("set the database up"))?;
    migrate(&mut connection).map_err(StoreError::database("bring the database up to date"))?;
    if durability == Durability::Full {
        // Where there is no room for it the journal grows as it is written, which only takes longer.
        let _ = lengthen_journal(path);
    }
    Ok(connection)
}

/// Gives the journal the size at once that it grows to, since a sync behind a file that has grown writes its size too, and takes half as long again.
/// SQLite takes what lies behind its last whole frame for nothing.
fn lengthen_journal(database: &Path) -> std::io::Result<()> {
    let mut path = database.as_os_str().to_owned();
    path.push("-wal");
    let mut file = OpenOptions::new().append(true).custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(path)?;
    let length = file.metadata()?.len();
    let written = io::copy(&mut io::repeat(0).take(JOURNAL_ROOM.saturating_sub(length)), &mut file);
    written.and_then(|_| file.sync_all()).inspect_err(|_| {
        let _ = file.set_len(length);
    })
}

/// Opens for reading a file that is up to date.
pub(crate) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let found = check(&connection, path)?;
    if found != known() {
        return Err(StoreError::Schema { path: path.to_owned(), found, known: known() });
    }
    Ok(connection)
}

fn connect(path: &Path, mode: OpenFlags) -> Result<Connection, StoreError> {
    let flags = mode | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let connection = Connection::open_with_flags(path, flags).map_err(StoreError::database("open the database"))?;
    let set = connection
        .busy_timeout(PATIENCE)
        .and_then(|()| connection.pragma_update(None, "trusted_schema", false))
        .and_then(|()| connection.pragma_update(None, "cell_size_check", true));
    set.map_err(StoreError::database("open the database"))?;
    Ok(connection)
}

fn known() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// The file's version, 0 for one that is empty; an error for one of somebody else, or from the future.
fn check(connection: &Connection, path: &Path) -> Result<i64, StoreError> {
    let number = |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let read = number("application_id").and_then(|application| {
        let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        Ok((application, tables, number("user_version")?))
    });
    match read {
        Ok((APPLICATION, _, found)) if found > known() => Err(StoreError::Schema { path: path.to_owned(), found, known: known() }),
        Ok((APPLICATION, _, found)) => Ok(found),
        Ok((0, 0, 0)) => Ok(0),
        Ok(_) => Err(StoreError::Foreign { path: path.to_owned() }),
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::NotADatabase) => Err(StoreError::Foreign { path: path.to_owned() }),
        Err(error) => Err(StoreError::database("read the database")(error)),
    }
}

/// Takes the steps that are missing, each whole or not at all.
fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    for (step, version) in MIGRATIONS.iter().zip(1_i64..) {
        if version <= found {
            continue;
        }
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "application_id", APPLICATION)?;
        transaction.pragma_update(None, "user_version", version)?;
        transaction.commit()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> (tempfile::TempDir, std::path::PathBuf) {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().canonicalize().unwrap().join("x.db");
        std::fs::write(&path, "").unwrap();
        (home, path)
    }

    #[test]
    fn a_new_file_gets_every_step_and_an_old_one_none() {
        let (_home, path) = file();
        assert!(matches!(open_reader(&path).unwrap_err(), StoreError::Schema { found: 0, .. }), "a reader brings nothing up to date");
        for _ in 0..2 {
            let connection = open_writer(&path, Durability::Full).unwrap();
            assert_eq!(connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0)).unwrap(), known());
            assert_eq!(connection.pragma_query_value(None, "journal_mode", |row| row.get::<_, String>(0)).unwrap(), "wal");
            assert_eq!(connection.pragma_query_value(None, "synchronous", |row| row.get::<_, i64>(0)).unwrap(), 2);
        }
        open_reader(&path).unwrap();
    }

    #[test]
    fn a_file_from_the_future_or_of_somebody_else_is_left_alone() {
        let (_home, path) = file();
        let connection = open_writer(&path, Durability::Normal).unwrap();
        connection.pragma_update(None, "user_version", 7).unwrap();
        drop(connection);
        let before = std::fs::read(&path).unwrap();
        for error in [open_writer(&path, Durability::Full).unwrap_err(), open_reader(&path).unwrap_err()] {
            assert!(error.to_string().ends_with("has schema version 7, and this Belljar uses 1"), "{error}");
            assert!(error.hint().unwrap().contains("newer Belljar"));
        }
        assert_eq!(std::fs::read(&path).unwrap(), before);
        let (_home, path) = file();
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
        assert!(matches!(open_writer(&path, Durability::Full).unwrap_err(), StoreError::Foreign { .. }));
        std::fs::write(&path, "not a database at all, but long enough to be one".repeat(100)).unwrap();
        assert!(matches!(open_writer(&path, Durability::Full).unwrap_err(), StoreError::Foreign { .. }));
    }

    #[test]
    fn the_journal_has_its_size_from_the_start_and_what_was_in_it_stays() {
        let (_home, path) = file();
        let journal = path.with_file_name("x.db-wal");
        let row = "events (at, kind, detail) VALUES ('', 'file_read', '{}')";
        let connection = open_writer(&path, Durability::Full).unwrap();
        assert_eq!(std::fs::metadata(&journal).unwrap().len(), JOURNAL_ROOM);
        connection.execute_batch(&format!("INSERT INTO {row}; INSERT INTO {row}")).unwrap();
        assert_eq!(std::fs::metadata(&journal).unwrap().len(), JOURNAL_ROOM, "it has not grown");
        // As a server that was killed leaves it, cut behind what was written and in the middle of nothing.
        for length in [JOURNAL_ROOM, 200_001] {
            let (_home, other) = file();
            std::fs::copy(&path, &other).unwrap();
            let bytes = std::fs::read(&journal).unwrap();
            std::fs::write(other.with_file_name("x.db-wal"), bytes.get(..usize::try_from(length).unwrap()).unwrap()).unwrap();
            for more in 0..3 {
                let connection = open_writer(&other, Durability::Full).unwrap();
                assert_eq!(connection.query_row("SELECT count(*) FROM events", [], |row| row.get::<_, i64>(0)).unwrap(), 2 + more);
                assert!(connection.execute_batch(&format!("INSERT INTO {row}")).is_ok());
                // Without closing it, which would take the journal into the database.
                std::mem::forget(connection);
            }
        }
    }

    #[test]
    fn the_record_cannot_be_changed() {
        let (_home, path) = file();
        let connection = open_writer(&path, Durability::Normal).unwrap();
        let row = "events (seq, at, kind, detail) VALUES (NULL, '', 'file_read', '{}')";
        connection.execute_batch(&format!("INSERT INTO {row}; INSERT INTO {row}")).unwrap();
        for statement in [
            "UPDATE events SET detail = '' WHERE seq = 1",
            "DELETE FROM events",
            "DELETE FROM events WHERE seq = 2",
            "REPLACE INTO events (seq, at, kind, detail) VALUES (1, '', 'file_read', '{}')",
            "INSERT OR REPLACE INTO events (seq, at, kind, detail) VALUES (2, '', 'file_read', '{}')",
            "INSERT INTO events (seq, at, kind, detail) VALUES (1, '', '', '') ON CONFLICT DO UPDATE SET detail = 'x'",
        ] {
            let error = connection.execute_batch(statement).unwrap_err();
            assert!(error.to_string().contains("append-only"), "{statement}: {error}");
        }
        let rows: i64 = connection.query_row("SELECT count(*) FROM events WHERE detail = '{}'", [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 2);
    }
}
