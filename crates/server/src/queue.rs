//! Between the thread that watches an execution and a reader of what it writes. What waits is bounded in bytes, and a reader that takes nothing is
//! left behind: the execution goes on.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Bytes that wait for a reader at most; a single larger item waits alone.
pub(crate) const WAITING_BYTES: usize = 1024 * 1024;
/// A reader that takes nothing for so long while its room is used up is gone. Less than any proxy would wait.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// Of what the code writes, one item takes so many bytes.
pub(crate) const PIECE_BYTES: usize = 64 * 1024;

/// Items on their way.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    state: Mutex<Waiting<T>>,
    /// The reader has taken something, or is gone.
    room: Condvar,
    /// Something waits, or nothing more will come.
    news: Notify,
    patience: Duration,
}

#[derive(Debug)]
struct Waiting<T> {
    items: VecDeque<(T, usize)>,
    bytes: usize,
    taken: u64,
    /// Nobody reads any more.
    gone: bool,
    /// Nothing more will be written.
    ended: bool,
}

impl<T> Waiting<T> {
    fn leave(&mut self) {
        self.gone = true;
        self.items.clear();
        self.bytes = 0;
    }
}

impl<T> Queue<T> {
    pub(crate) fn new(patience: Duration) -> Self {
        let waiting = Waiting { items: VecDeque::new(), bytes: 0, taken: 0, gone: false, ended: false };
        Self { state: Mutex::new(waiting), room: Condvar::new(), news: Notify::new(), patience }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an item of this many bytes, waiting for room. Nothing happens where nobody reads.
    pub(crate) fn push(&self, item: T, bytes: usize) {
        let mut state = self.lock();
        let mut taken = state.taken;
        let mut until = Instant::now() + self.patience;
        while state.bytes > 0 && state.bytes.saturating_add(bytes) > WAITING_BYTES && !state.gone {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                state.leave();
                break;
            }
            state = self.room.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            if state.taken != taken {
                taken = state.taken;
                until = Instant::now() + self.patience;
            }
        }
        if !state.gone {
            state.bytes = state.bytes.saturating_add(bytes);
            state.items.push_back((item, bytes));
        }
        drop(state);
        self.news.notify_one();
    }

    /// Nothing more will be pushed.
    pub(crate) fn end(&self) {
        self.lock().ended = true;
        self.news.notify_one();
    }

    /// The next item; `None` after the last, `Err` where the reader was left behind.
    pub(crate) async fn pop(&self) -> Result<Option<T>, Behind> {
        loop {
            let news = self.news.notified();
            {
                let mut state = self.lock();
                if state.gone {
                    return Err(Behind);
                }
                if let Some((item, bytes)) = state.items.pop_front() {
                    state.bytes = state.bytes.saturating_sub(bytes);
                    state.taken = state.taken.saturating_add(1);
                    self.room.notify_all();
                    return Ok(Some(item));
                }
                if state.ended {
                    return Ok(None);
                }
            }
            news.await;
        }
    }

    #[cfg(test)]
    pub(crate) fn waiting(&self) -> (usize, bool) {
        let state = self.lock();
        (state.bytes, state.gone)
    }
}

/// The reader took too long.
#[derive(Debug, thiserror::Error)]
#[error("the reader was too slow")]
pub(crate) struct Behind;

/// The reader's end: when it is dropped, nobody reads any more.
#[derive(Debug)]
pub(crate) struct Reader<T>(pub(crate) Arc<Queue<T>>);

impl<T> Drop for Reader<T> {
    fn drop(&mut self) {
        self.0.lock().leave();
        self.0.room.notify_all();
    }
}

/// Turns bytes that come in pieces into text: characters that are cut wait for their rest, bytes that are none become U+FFFD.
#[derive(Debug, Default)]
pub(crate) struct Decoder(Vec<u8>);

impl Decoder {
    pub(crate) fn decode(&mut self, bytes: &[u8]) -> String {
        let mut all = std::mem::take(&mut self.0);
        all.extend_from_slice(bytes);
        let mut text = String::with_capacity(all.len());
        let mut chunks = all.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.push_str(chunk.valid());
            let invalid = chunk.invalid();
            let is_cut = chunks.peek().is_none() && std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none());
            if is_cut {
                self.0 = invalid.to_vec();
            } else if !invalid.is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        text
    }

    /// What was held back, which nothing will complete.
    pub(crate) fn rest(&mut self) -> Option<String> {
        let rest = std::mem::take(&mut self.0);
        (!rest.is_empty()).then(|| String::from_utf8_lossy(&rest).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_stay_whole_and_bytes_become_text() {
        let mut decoder = Decoder::default();
        let text = "aé😀z".as_bytes();
        let pieces: String = text.chunks(1).map(|piece| decoder.decode(piece)).collect();
        assert_eq!(pieces, "aé😀z");
        assert_eq!(decoder.rest(), None);
        assert_eq!(decoder.decode(b"\xffa\xc3\x28\xe2\x82"), "\u{fffd}a\u{fffd}(");
        assert_eq!(decoder.decode(b"\xac!"), "€!");
        assert_eq!(decoder.decode(b"\xf0\x9f"), "");
        assert_eq!(decoder.rest().as_deref(), Some("\u{fffd}"));
    }

    #[tokio::test]
    async fn a_reader_that_takes_nothing_is_left_behind() {
        let queue = Queue::new(Duration::from_millis(1));
        for _ in 0..100 {
            queue.push((), PIECE_BYTES);
            assert!(queue.waiting().0 <= WAITING_BYTES);
        }
        assert!(queue.pop().await.is_err(), "its room was used up");
        assert_eq!(queue.waiting(), (0, true), "nothing is kept for it");
    }

    #[tokio::test]
    async fn a_reader_that_keeps_reading_gets_everything() {
        let queue = Arc::new(Queue::new(PATIENCE));
        let writer = Arc::clone(&queue);
        let thread = std::thread::spawn(move || {
            for number in 0..100 {
                writer.push(number, PIECE_BYTES);
            }
            writer.push(100, 3 * WAITING_BYTES);
            writer.end();
        });
        let mut seen = Vec::new();
        while let Some(item) = queue.pop().await.unwrap() {
            seen.push(item);
        }
        assert_eq!(seen, (0..=100).collect::<Vec<_>>());
        thread.join().unwrap();
    }

    #[test]
    fn nobody_waits_for_a_reader_that_has_left() {
        let queue = Arc::new(Queue::new(Duration::from_secs(3600)));
        queue.push((), WAITING_BYTES / 2);
        drop(Reader(Arc::clone(&queue)));
        queue.push((), 2 * WAITING_BYTES);
        assert_eq!(queue.waiting(), (0, true));
    }
}
