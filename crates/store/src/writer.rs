//! Writing: whatever waits goes into one transaction, and everybody is told once that is durable.
//!
//! One at a time writes. Whoever waits for an event and finds nobody writing does it, for all: no thread has to be woken on the way of an
//! execution. What comes meanwhile, and what nobody waits for, is written by a thread of its own.

use std::collections::VecDeque;
use std::sync::mpsc::{SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};

use rusqlite::{CachedStatement, Connection, OptionalExtension, TransactionBehavior, params};

use crate::error::StoreError;
use crate::event::{Event, EventKind, Row};
use crate::keys::KeyRow;
use crate::queue::{Closed, Queue};

/// Jobs of one transaction at most.
const BATCH: usize = 1024;

/// Something to write.
#[derive(Debug)]
pub(crate) enum Work {
    /// An event.
    Event(Box<Row>),
    /// A new key, and the event of it.
    CreateKey(Box<KeyRow>, Box<Row>),
    /// The end of a key at this time, and the event of it; nothing where it had ended before.
    RevokeKey { id: String, at: String, event: Box<Row> },
    /// Nothing: done once all before it is.
    Flush,
    /// Bounds the database, for tests of a full disk.
    #[cfg(test)]
    MaxPages(i64),
}

/// How to answer whoever waits: the event's place, where there is one.
pub(crate) type Answer = SyncSender<Result<i64, StoreError>>;

/// Work, and who waits for it.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) work: Work,
    pub(crate) answer: Option<Answer>,
}

/// What others may know of the writer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    pub(crate) last_seq: i64,
    pub(crate) failing: Option<StoreError>,
}

pub(crate) struct Writer {
    connection: Connection,
    queue: Arc<Queue<Job>>,
    progress: Arc<Mutex<Progress>>,
    /// Could not be written, and nobody waits for it; older than all that is in the queue.
    kept: VecDeque<Job>,
}

/// The writer, in the hands of who writes; `None` when it has ended. One that panicked is not used again.
pub(crate) type Desk = Mutex<Option<Writer>>;

/// Nobody may wait for a writer that is no more, however it ended.
struct Farewell(Arc<Queue<Job>>);

impl Drop for Farewell {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

impl Writer {
    pub(crate) fn new(connection: Connection, queue: Arc<Queue<Job>>, progress: Arc<Mutex<Progress>>) -> Self {
        Self { connection, queue, progress, kept: VecDeque::new() }
    }

    /// Writes what waits, up to a batch.
    fn turn(&mut self) {
        let jobs = self.queue.drain(BATCH);
        self.commit(jobs);
        self.queue.again(!self.kept.is_empty());
    }

    /// Ends writing. Gives the number of events that could not be written.
    fn finish(mut self) -> usize {
        if !self.kept.is_empty() {
            self.commit(Vec::new());
        }
        let lost = self.kept.len();
        // Takes the journal into the database, though somebody may still read it; where that fails, the next start does it.
        let _ = self.connection.pragma_update(None, "wal_checkpoint", "truncate");
        let _ = self.connection.close();
        lost
    }

    fn commit(&mut self, jobs: Vec<Job>) {
        let mut batch = std::mem::take(&mut self.kept);
        batch.extend(jobs);
        if batch.is_empty() {
            return;
        }
        match write(&mut self.connection, &batch) {
            Ok(places) => {
                let last = places.iter().copied().max().unwrap_or_default();
                let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
                progress.last_seq = progress.last_seq.max(last);
                progress.failing = None;
                drop(progress);
                let unwaited = batch.iter().filter(|job| job.answer.is_none()).count();
                for (answer, place) in batch.into_iter().map(|job| job.answer).zip(places) {
                    if let Some(answer) = answer {
                        let _ = answer.send(Ok(place));
                    }
                }
                self.queue.settle(unwaited);
            }
            Err(error) => {
                let error = StoreError::database("write the record")(error);
                self.progress.lock().unwrap_or_else(PoisonError::into_inner).failing = Some(error.clone());
                for job in batch {
                    match job.answer {
                        Some(answer) => {
                            let _ = answer.send(Err(error.clone()));
                        }
                        None => self.kept.push_back(job),
                    }
                }
            }
        }
    }
}

/// The thread: writes until the queue is closed and empty. Gives the number of events that could not be written.
pub(crate) fn run(desk: &Desk, queue: &Arc<Queue<Job>>) -> usize {
    let _farewell = Farewell(Arc::clone(queue));
    while queue.wait(BATCH) {
        let Ok(mut writer) = desk.lock() else { return 0 };
        let Some(writer) = writer.as_mut() else { return 0 };
        writer.turn();
    }
    let writer = desk.lock().ok().and_then(|mut writer| writer.take());
    writer.map_or(0, Writer::finish)
}

/// Has this written, and waits until it is durable: by its own hand where nobody else writes. Gives the place of its event.
pub(crate) fn write_now(desk: &Desk, queue: &Queue<Job>, work: Work) -> Result<i64, StoreError> {
    let (answer, answered) = sync_channel(1);
    let job = Job { work, answer: Some(answer) };
    match desk.try_lock() {
        Ok(mut writer) => {
            let writer = writer.as_mut().ok_or(StoreError::Closed)?;
            queue.bring_quietly(job).map_err(|Closed| StoreError::Closed)?;
            loop {
                match answered.try_recv() {
                    Ok(answer) => return answer,
                    Err(TryRecvError::Empty) => writer.turn(),
                    Err(TryRecvError::Disconnected) => return Err(StoreError::Closed),
                }
            }
        }
        Err(TryLockError::WouldBlock) => {
            queue.bring(job).map_err(|Closed| StoreError::Closed)?;
            answered.recv().unwrap_or(Err(StoreError::Closed))
        }
        Err(TryLockError::Poisoned(_)) => Err(StoreError::Closed),
    }
}

/// Writes all of it or nothing. Gives the place of each job's event.
fn write(connection: &mut Connection, batch: &VecDeque<Job>) -> rusqlite::Result<Vec<i64>> {
    #[cfg(test)]
    for job in batch {
        if let Work::MaxPages(pages) = job.work {
            connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
        }
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut places = Vec::with_capacity(batch.len());
    for job in batch {
        places.push(match &job.work {
            Work::Event(row) => insert(&transaction, row)?,
            Work::CreateKey(key, event) => {
                key.insert(&transaction)?;
                insert(&transaction, event)?
            }
            Work::RevokeKey { id, at, event } => {
                let changed = transaction.prepare_cached("UPDATE keys SET revoked_at = ?2 WHERE id = ?1 AND revoked_at IS NULL")?.execute(params![id, at])?;
                if changed == 0 { 0 } else { insert(&transaction, event)? }
            }
            Work::Flush => 0,
            #[cfg(test)]
            Work::MaxPages(_) => 0,
        });
    }
    transaction.commit()?;
    Ok(places)
}

/// Puts an event into its row. The end of an execution takes from its beginning what it does not say itself.
fn insert(connection: &Connection, row: &Row) -> rusqlite::Result<i64> {
    let mut statement = match row.kind {
        EventKind::ExecutionConcluded => connection.prepare_cached(CONCLUDE)?,
        _ => connection.prepare_cached(INSERT)?,
    };
    bind(&mut statement, row)?;
    let seq = connection.last_insert_rowid();
    match row.kind {
        EventKind::ExecutionIntended => {
            connection.prepare_cached("INSERT OR REPLACE INTO open_executions (execution, seq) VALUES (?1, ?2)")?.execute(params![row.execution, seq])?;
        }
        EventKind::ExecutionConcluded => {
            connection.prepare_cached("DELETE FROM open_executions WHERE execution = ?1")?.execute(params![row.execution])?;
        }
        _ => {}
    }
    Ok(seq)
}

const INSERT: &str = "INSERT INTO events (at, kind, principal, pool, session, session_guid, execution, detail) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";

const CONCLUDE: &str = "INSERT INTO events (at, kind, principal, pool, session, session_guid, execution, detail)
    SELECT ?1, ?2, coalesce(?3, i.principal), coalesce(?4, i.pool), coalesce(?5, i.session), coalesce(?6, i.session_guid), ?7, ?8
    FROM (SELECT 1) LEFT JOIN events i ON i.seq = (SELECT seq FROM open_executions WHERE execution = ?7)";

fn bind(statement: &mut CachedStatement<'_>, row: &Row) -> rusqlite::Result<usize> {
    statement.execute(params![row.at, row.kind.name(), row.principal, row.pool, row.session, row.session_guid, row.execution, row.detail])
}

/// Concludes executions that an earlier belljar began and did not live to conclude, and gives the place of the last event.
pub(crate) fn recover(connection: &mut Connection) -> rusqlite::Result<i64> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let open: Vec<String> = {
        let mut statement = transaction.prepare("SELECT execution FROM open_executions ORDER BY seq")?;
        statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?
    };
    for execution in open {
        let event = Event::new(EventKind::ExecutionConcluded).with("outcome", "unknown").with("reason", "belljar ended before it did");
        insert(&transaction, &Row::from(Event { execution: Some(execution), ..event }))?;
    }
    let last = transaction.query_row("SELECT max(seq) FROM events", [], |row| row.get::<_, Option<i64>>(0)).optional()?.flatten().unwrap_or_default();
    transaction.commit()?;
    Ok(last)
}
