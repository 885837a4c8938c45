//! The store as its one writing process has it.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::SystemTime;

use crate::error::StoreError;
use crate::event::{Event, EventKind, Row};
use crate::keys::{CreatedKey, KeyInfo, NewKey, Table};
use crate::place::{Lock, Place};
use crate::query::{Filter, Reader, Recorded};
use crate::queue::{Closed, Queue};
use crate::writer::{self, Desk, Job, Progress, Work, Writer};
use crate::{schema, time};

/// What "durable" means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Durability {
    /// On the disk: a power cut takes nothing that was acknowledged.
    #[default]
    Full,
    /// With the kernel: a kill of belljar takes nothing, a power cut may take the last events.
    Normal,
}

impl Durability {
    pub(crate) fn pragma(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Normal => "normal",
        }
    }
}

/// How to open the store.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// What "durable" means.
    pub durability: Durability,
}

/// How the record is doing.
#[derive(Debug, Clone)]
pub struct Status {
    /// Place of the last event that is durable.
    pub last_seq: i64,
    /// Events that nobody waits for and that are not durable yet.
    pub waiting: usize,
    /// Why the last try to write failed, if it did.
    pub failing: Option<String>,
}

/// The record and the keys, open for writing. One process at a time has it.
pub struct Store {
    queue: Arc<Queue<Job>>,
    progress: Arc<Mutex<Progress>>,
    reader: Reader,
    keys: Table,
    desk: Arc<Desk>,
    thread: Mutex<Option<JoinHandle<usize>>>,
    /// Given back last.
    _lock: Lock,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("progress", &self.progress).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store below this data folder, and makes both where they are not there. Executions that were begun and never concluded are
    /// concluded, with the outcome `unknown`.
    ///
    /// # Errors
    /// Another process has it; a file is not to be trusted, from a newer Belljar, or damaged; the folder cannot be written to.
    pub fn open(data: &Path, options: Options) -> Result<Arc<Self>, StoreError> {
        let place = Place::make(data)?;
        let lock = place.lock()?;
        let database = place.make_database()?;
        let mut connection = schema::open_writer(&database, options.durability)?;
        let last_seq = writer::recover(&mut connection).map_err(StoreError::database("conclude what an earlier belljar began"))?;
        let keys = Table::read(&connection).map_err(StoreError::database("read the keys"))?;
        let reader = Reader::on(&database)?;
        let queue = Arc::new(Queue::new());
        let progress = Arc::new(Mutex::new(Progress { last_seq, failing: None }));
        let writer = Writer::new(connection, Arc::clone(&queue), Arc::clone(&progress));
        let desk = Arc::new(Mutex::new(Some(writer)));
        let (theirs, jobs) = (Arc::clone(&desk), Arc::clone(&queue));
        let thread = std::thread::Builder::new().name("record".to_owned()).spawn(move || writer::run(&theirs, &jobs));
        let thread = thread.map_err(StoreError::place("start a thread for", &database))?;
        Ok(Arc::new(Self { queue, progress, reader, keys, desk, thread: Mutex::new(Some(thread)), _lock: lock }))
    }

    /// Opens the record for reading, whether or not a server has the store.
    ///
    /// # Errors
    /// There is none; a file is not to be trusted, from a newer Belljar, or damaged.
    pub fn open_reader(data: &Path) -> Result<Reader, StoreError> {
        Reader::open(data)
    }

    /// Puts an event on record, and waits until that is durable. Gives its place.
    ///
    /// # Errors
    /// It is not on record.
    pub fn append(&self, event: Event) -> Result<i64, StoreError> {
        self.wait_for(Work::Event(Box::new(event.into())))
    }

    /// Puts an event on record some time soon. Waits only where too many are on their way. It is tried until it succeeds or the store is closed.
    ///
    /// # Errors
    /// The store is closed.
    pub fn enqueue(&self, event: Event) -> Result<(), StoreError> {
        let job = Job { work: Work::Event(Box::new(event.into())), answer: None };
        self.queue.leave(job).map_err(|Closed| StoreError::Closed)
    }

    /// Waits until everything that was brought before is durable.
    ///
    /// # Errors
    /// Something of it is not.
    pub fn flush(&self) -> Result<(), StoreError> {
        self.wait_for(Work::Flush).map(|_| ())
    }

    pub(crate) fn wait_for(&self, work: Work) -> Result<i64, StoreError> {
        writer::write_now(&self.desk, &self.queue, work)
    }

    /// Events that match, in their order. Never waits for writing.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub fn query(&self, filter: &Filter) -> Result<Vec<Recorded>, StoreError> {
        self.reader.query(filter)
    }

    /// How the record is doing.
    #[must_use]
    pub fn status(&self) -> Status {
        let progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let failing = progress.failing.map(|error| explain(&error));
        Status { last_seq: progress.last_seq, waiting: self.queue.unwaited(), failing }
    }

    /// Makes a key; `by` is who asked for it. The secret is in the answer, and nowhere else.
    ///
    /// # Errors
    /// It cannot be made as asked; it is not on record.
    pub fn create_key(&self, new: NewKey, by: &str) -> Result<CreatedKey, StoreError> {
        let (created, row) = self.keys.draw(new, SystemTime::now())?;
        let event = created.info.event(EventKind::KeyCreated).by(by);
        self.wait_for(Work::CreateKey(Box::new(row.clone()), Box::new(Row::from(event))))?;
        self.keys.add(Arc::new(created.info.clone()), &row);
        Ok(created)
    }

    /// Ends a key at once; `by` is who asked for it. One that has ended stays as it is.
    ///
    /// # Errors
    /// There is none with this id; it is not durable, and then the key is refused until the next start only.
    pub fn revoke_key(&self, id: &str, by: &str) -> Result<KeyInfo, StoreError> {
        let now = SystemTime::now();
        let info = self.keys.revoke(id, now)?;
        let event = info.event(EventKind::KeyRevoked).by(by);
        let work = Work::RevokeKey { id: info.id.clone(), at: time::format(info.revoked_at.unwrap_or(now)), event: Box::new(Row::from(event)) };
        match self.wait_for(work) {
            Ok(_) => Ok(KeyInfo::clone(&info)),
            Err(error) => Err(StoreError::RevokedForNow { id: info.id.clone(), source: Box::new(error) }),
        }
    }

    /// All keys by the time they were made, also those that have ended.
    #[must_use]
    pub fn keys(&self) -> Vec<KeyInfo> {
        self.keys.all()
    }

    /// The key that this is, if it is one that holds now.
    #[must_use]
    pub fn verify(&self, presented: &str) -> Option<Arc<KeyInfo>> {
        self.keys.verify(presented, SystemTime::now())
    }

    /// Ends writing, once what was brought before is durable. Gives the number of events that could not be put on record.
    pub fn close(&self) -> usize {
        self.queue.close();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        thread.map_or(0, |thread| thread.join().unwrap_or_default())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

/// An error with its causes.
fn explain(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::UNWAITED;

    fn event(turn: usize) -> Event {
        Event::new(EventKind::FileWritten).by("p").with("path", format!("{turn}-{}", "x".repeat(2000)))
    }

    /// Opens a store whose database cannot grow, and fills it until it says so.
    fn full() -> (tempfile::TempDir, Arc<Store>, usize) {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path(), Options::default()).unwrap();
        store.wait_for(Work::MaxPages(40)).unwrap();
        let written = (0..).take_while(|turn| store.append(event(*turn)).is_ok()).count();
        assert!(written > 5 && written < 1000, "{written}");
        (home, store, written)
    }

    #[test]
    fn a_full_disk_is_told_to_everybody_and_is_over_when_there_is_room() {
        let (_home, store, written) = full();
        std::thread::scope(|scope| {
            for turn in 0..8 {
                let store = &store;
                scope.spawn(move || {
                    let error = store.append(event(turn)).unwrap_err();
                    assert_eq!(error.to_string(), "cannot write the record");
                    assert!(error.hint().unwrap().contains("free space"), "{error:?}");
                });
            }
        });
        assert!(store.flush().is_ok(), "what needs no room still works");
        assert!(store.append(event(0)).is_err());
        assert!(store.status().failing.unwrap().contains("full"), "{:?}", store.status());
        assert_eq!(store.status().last_seq, i64::try_from(written).unwrap());
        assert_eq!(store.query(&Filter::default()).unwrap().len(), written, "reading goes on");
        store.wait_for(Work::MaxPages(100_000)).unwrap();
        assert_eq!(store.append(event(0)).unwrap(), i64::try_from(written + 1).unwrap(), "no place was lost");
        assert_eq!(store.status().failing, None);
    }

    #[test]
    fn what_nobody_waits_for_is_kept_until_there_is_room() {
        let (_home, store, written) = full();
        for turn in 0..UNWAITED {
            store.enqueue(event(turn)).unwrap();
        }
        assert_eq!(store.status().waiting, UNWAITED);
        std::thread::scope(|scope| {
            let one_more = scope.spawn(|| store.enqueue(event(UNWAITED)));
            assert!(store.append(event(0)).is_err(), "whoever waits is answered at once, however much is kept");
            assert!(!one_more.is_finished(), "whoever does not wait has to");
            store.wait_for(Work::MaxPages(100_000)).unwrap();
            one_more.join().unwrap().unwrap();
        });
        store.flush().unwrap();
        let all = store.query(&Filter { after_seq: i64::try_from(written).ok(), ..Filter::default() }).unwrap();
        let turns: Vec<usize> = all.iter().map(|event| event.detail["path"].as_str().unwrap().split('-').next().unwrap().parse().unwrap()).collect();
        assert_eq!(turns, (0..=UNWAITED).collect::<Vec<_>>(), "all of them, in their order");
        assert_eq!(store.close(), 0);
    }

    #[test]
    fn what_could_never_be_written_is_counted() {
        let (home, store, written) = full();
        store.enqueue(event(1)).unwrap();
        store.enqueue(event(2)).unwrap();
        assert_eq!(store.close(), 2);
        assert!(matches!(store.append(event(3)).unwrap_err(), StoreError::Closed));
        assert!(matches!(store.enqueue(event(3)).unwrap_err(), StoreError::Closed));
        drop(store);
        assert_eq!(Store::open_reader(home.path()).unwrap().query(&Filter::default()).unwrap().len(), written);
    }

    #[test]
    fn a_key_is_revoked_even_if_that_cannot_be_written() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path(), Options::default()).unwrap();
        let new = NewKey { name: "x".to_owned(), roles: vec![crate::Role::Admin], ..NewKey::default() };
        let created = store.create_key(new.clone(), "local").unwrap();
        store.wait_for(Work::MaxPages(1)).unwrap();
        while store.append(event(0)).is_ok() {}
        while store.append(Event::new(EventKind::FileRead)).is_ok() {}
        let error = store.revoke_key(&created.info.id, "local").unwrap_err();
        assert!(matches!(error, StoreError::RevokedForNow { .. }) && error.hint().unwrap().contains("free space"), "{error}");
        assert!(store.verify(&created.key).is_none());
        let before = store.keys().len();
        assert!(store.create_key(new, "local").is_err());
        assert_eq!(store.keys().len(), before, "a key that is not on record does not exist");
        store.wait_for(Work::MaxPages(100_000)).unwrap();
        store.revoke_key(&created.info.id, "local").unwrap();
        drop(store);
        let store = Store::open(home.path(), Options::default()).unwrap();
        assert!(store.verify(&created.key).is_none(), "and asked again, for good");
    }

    #[test]
    fn a_second_opener_is_refused_and_a_reader_is_not() {
        let home = tempfile::tempdir().unwrap();
        let none = Store::open_reader(home.path()).unwrap_err();
        assert!(matches!(none, StoreError::NoRecord { .. }) && none.hint().unwrap().contains("belljar serve"));
        let store = Store::open(home.path(), Options::default()).unwrap();
        store.append(event(0)).unwrap();
        let error = Store::open(home.path(), Options::default()).unwrap_err();
        assert!(matches!(error, StoreError::InUse { pid: Some(pid), .. } if pid == std::process::id()), "{error}");
        let reader = Store::open_reader(home.path()).unwrap();
        assert_eq!(reader.query(&Filter::default()).unwrap().len(), 1);
        store.append(event(1)).unwrap();
        assert_eq!(reader.query(&Filter::default()).unwrap().len(), 2, "a reader sees what was written since");
        drop(store);
        assert_eq!(Store::open_reader(home.path()).unwrap().query(&Filter::default()).unwrap().len(), 2);
        Store::open(home.path(), Options::default()).unwrap();
    }
}
