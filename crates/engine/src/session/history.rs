//! The latest executions of a session: what is running, and what came of the last ones, within bounds.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use sandbox::Stream;
use serde_json::Value as Json;
use tokio::sync::watch;

use super::{ExecutionEntry, Finished, Progressed};
use crate::error::Error;
use crate::execution::Execution;
use crate::run::Control;

/// Executions that a session remembers.
const MOST: usize = 64;
/// Bytes of outputs that a session remembers, but for the last execution.
const BYTES: u64 = 8 * 1024 * 1024;
/// Bytes that all sessions together remember, before each keeps no more than [`SCARCE_BYTES`].
const ALL_BYTES: u64 = 512 * 1024 * 1024;
const SCARCE_BYTES: u64 = 1024 * 1024;
/// Bytes of long streams that a session keeps on disk.
const WHOLE_BYTES: u64 = 64 * 1024 * 1024;

struct Entry {
    id: String,
    requested_at: SystemTime,
    control: Arc<Control>,
    progress: watch::Sender<Progressed>,
    /// Bytes that its outputs take.
    bytes: u64,
    whole: [Option<File>; 2],
}

/// The executions of one session.
pub(super) struct History {
    entries: VecDeque<Entry>,
    bytes: u64,
    all: Arc<AtomicU64>,
}

impl History {
    /// `all` counts what all sessions keep.
    pub(super) fn new(all: Arc<AtomicU64>) -> Self {
        Self { entries: VecDeque::new(), bytes: 0, all }
    }

    pub(super) fn add(&mut self, id: String, control: Arc<Control>) -> watch::Receiver<Progressed> {
        let (progress, receiver) = watch::channel(Progressed::Queued);
        self.entries.push_back(Entry { id, requested_at: SystemTime::now(), control, progress, bytes: 0, whole: [None, None] });
        receiver
    }

    pub(super) fn began(&mut self, id: &str) {
        if let Some(entry) = self.entry(id) {
            entry.progress.send_replace(Progressed::Running);
        }
    }

    pub(super) fn finished(&mut self, id: &str, finished: Finished, whole: [Option<File>; 2]) {
        let bytes = weight(&finished.execution);
        if let Some(entry) = self.entry(id) {
            (entry.bytes, entry.whole) = (bytes, whole);
            entry.progress.send_replace(Progressed::Finished(Arc::new(finished)));
            self.bytes += bytes;
            self.all.fetch_add(bytes, Ordering::Relaxed);
        }
        self.forget();
    }

    pub(super) fn failed(&mut self, id: &str, error: Error) {
        if let Some(entry) = self.entry(id) {
            entry.progress.send_replace(Progressed::Failed(Arc::new(error)));
        }
        self.forget();
    }

    fn entry(&mut self, id: &str) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.id == id)
    }

    /// Forgets the oldest that are over, until what is left is within bounds.
    fn forget(&mut self) {
        let whole = |entry: &Entry| entry.whole.iter().flatten().filter_map(|file| file.metadata().ok()).map(|facts| facts.len()).sum::<u64>();
        let mut on_disk: u64 = self.entries.iter().map(whole).sum();
        for entry in &mut self.entries {
            if on_disk <= WHOLE_BYTES {
                break;
            }
            on_disk -= whole(entry);
            entry.whole = [None, None];
        }
        loop {
            let scarce = self.all.load(Ordering::Relaxed) > ALL_BYTES;
            let ended = |entry: &&Entry| matches!(*entry.progress.borrow(), Progressed::Finished(_) | Progressed::Failed(_));
            let several = self.entries.iter().filter(ended).nth(1).is_some();
            let over = self.entries.len() > MOST || (self.bytes > BYTES && several) || (scarce && self.bytes > SCARCE_BYTES);
            let oldest = self.entries.iter().position(|entry| ended(&entry));
            let Some(entry) = oldest.filter(|_| over).and_then(|index| self.entries.remove(index)) else { return };
            self.release(entry.bytes);
        }
    }

    fn release(&mut self, bytes: u64) {
        self.bytes -= bytes;
        self.all.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn list(&self) -> Vec<ExecutionEntry> {
        self.entries.iter().map(|entry| entry.shown()).collect()
    }

    pub(super) fn get(&self, id: &str) -> Option<ExecutionEntry> {
        self.entries.iter().find(|entry| entry.id == id).map(Entry::shown)
    }

    pub(super) fn control(&self, id: &str) -> Option<Arc<Control>> {
        self.entries.iter().find(|entry| entry.id == id).map(|entry| Arc::clone(&entry.control))
    }

    /// The file of a stream that was long.
    pub(super) fn whole(&self, id: &str, stream: Stream) -> Option<&File> {
        let [stdout, stderr] = &self.entries.iter().find(|entry| entry.id == id)?.whole;
        if stream == Stream::Stdout { stdout.as_ref() } else { stderr.as_ref() }
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.release(self.bytes);
    }
}

impl Entry {
    fn shown(&self) -> ExecutionEntry {
        ExecutionEntry { id: self.id.clone(), requested_at: self.requested_at, progress: self.progress.borrow().clone() }
    }
}

/// Bytes that an execution takes in memory, as far as code decides it: all that it chose the length of.
fn weight(execution: &Execution) -> u64 {
    let outputs = execution.outputs.iter().map(|output| output.data.len() + output.media_type.len() + output.name.len());
    let artifacts = execution.artifacts.iter().map(|artifact| 2 * artifact.path.len() + artifact.raw_path.as_os_str().len() + 256);
    let texts = [execution.stdout.len(), execution.stderr.len()].into_iter();
    let error = execution.error.iter().map(|error| error.name.len() + error.message.len() + error.traceback.len());
    let result = execution.result.iter().map(|value| value.text.len() + json_weight(&value.json));
    let documents = execution.output.iter().chain(&execution.output_schema).map(json_weight);
    let total = outputs.chain(artifacts).chain(texts).chain(error).chain(result).chain(documents).fold(4096, usize::saturating_add);
    u64::try_from(total).unwrap_or(u64::MAX)
}

/// Bytes of a parsed document: many times its text, where that is brackets.
fn json_weight(value: &Json) -> usize {
    /// Beside the key and the value of a member: its hash, and its place in the table.
    const MEMBER: usize = 2 * size_of::<usize>() + size_of::<String>();
    let below = match value {
        Json::String(text) => text.capacity(),
        Json::Array(items) => items.iter().map(json_weight).fold((items.capacity() - items.len()) * size_of::<Json>(), usize::saturating_add),
        Json::Object(members) => members.iter().map(|(name, member)| MEMBER + name.capacity() + json_weight(member)).fold(0, usize::saturating_add),
        Json::Null | Json::Bool(_) | Json::Number(_) => 0,
    };
    size_of::<Json>().saturating_add(below)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Timings;
    use sandbox::Limits;

    fn done(stdout: usize) -> Finished {
        let mut execution = crate::run::never_began("namespace", ("exe", "ses"), Limits::default());
        execution.stdout = "x".repeat(stdout);
        Finished { execution, timings: Timings::default() }
    }

    #[test]
    fn memory_is_bounded_and_what_runs_is_never_forgotten() {
        let all = Arc::new(AtomicU64::new(0));
        let mut history = History::new(Arc::clone(&all));
        drop(history.add("running".to_owned(), Arc::default()));
        for number in 0..100 {
            let id = format!("{number}");
            drop(history.add(id.clone(), Arc::default()));
            history.began(&id);
            history.finished(&id, done(1 << 20), [None, None]);
        }
        assert!(history.bytes <= BYTES && history.bytes == all.load(Ordering::Relaxed));
        assert!(history.get("running").is_some() && history.get("99").is_some() && history.get("0").is_none());
        drop(history.add("large".to_owned(), Arc::default()));
        history.finished("large", done(20 << 20), [None, None]);
        assert!(history.get("large").is_some(), "the last one is kept");
        drop(history);
        assert_eq!(all.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_documents_take_in_memory_counts_however_short_they_are_as_text() {
        let mut history = History::new(Arc::default());
        let lists = Json::Array(vec![Json::Array(Vec::new()); 200_000]);
        let names: Json = (0..50_000).map(|number| (number.to_string(), Json::Null)).collect::<serde_json::Map<_, _>>().into();
        let changes: [fn(&mut Execution, Json); 3] = [
            |execution, json| execution.result = Some(crate::Value { text: String::new(), json }),
            |execution, json| execution.output = Some(json),
            |execution, json| execution.outputs = vec![crate::Output { media_type: json.to_string().repeat(10), name: String::new(), data: String::new() }],
        ];
        for (number, (change, json)) in changes.iter().flat_map(|change| [(change, &lists), (change, &names)]).enumerate() {
            let mut finished = done(0);
            change(&mut finished.execution, json.clone());
            assert!(weight(&finished.execution) > 4 << 20, "{number}");
            drop(history.add(number.to_string(), Arc::default()));
            history.finished(&number.to_string(), finished, [None, None]);
        }
        assert!(history.bytes <= BYTES || history.list().len() == 1, "{} bytes of {} executions", history.bytes, history.list().len());
    }

    #[test]
    fn the_number_is_bounded() {
        let mut history = History::new(Arc::default());
        for number in 0..200 {
            let id = format!("{number}");
            drop(history.add(id.clone(), Arc::default()));
            history.failed(&id, Error::new(crate::ErrorKind::Internal, "x"));
        }
        assert_eq!((history.list().len(), history.list()[0].id.as_str()), (MOST, "136"));
    }
}
