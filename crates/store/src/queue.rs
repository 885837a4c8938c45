//! What waits for the writer: bounded, in order, never dropped.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Jobs nobody waits for that may be on their way at once; whoever brings one more waits for room.
pub(crate) const UNWAITED: usize = 2048;

/// Jobs that nobody waits for are held back for so long, for one to come that somebody waits for: then one commit serves both.
const HELD: Duration = Duration::from_millis(10);

/// Jobs on their way to the one thread that does them. Those that somebody waits for are bounded by the threads that wait.
#[derive(Debug)]
pub(crate) struct Queue<J> {
    state: Mutex<State<J>>,
    work: Condvar,
    room: Condvar,
}

#[derive(Debug)]
struct State<J> {
    /// In their order, each with whether somebody waits for it.
    jobs: VecDeque<(bool, J)>,
    waited: usize,
    unwaited: usize,
    open: bool,
}

/// The queue takes nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed;

impl<J> Queue<J> {
    pub(crate) fn new() -> Self {
        let state = State { jobs: VecDeque::new(), waited: 0, unwaited: 0, open: true };
        Self { state: Mutex::new(state), work: Condvar::new(), room: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings a job that its caller waits for.
    pub(crate) fn bring(&self, job: J) -> Result<(), Closed> {
        let mut state = self.state();
        if !state.open {
            return Err(Closed);
        }
        state.waited += 1;
        state.jobs.push_back((true, job));
        self.work.notify_one();
        Ok(())
    }

    /// Brings a job that nobody waits for, once there is room.
    pub(crate) fn leave(&self, job: J) -> Result<(), Closed> {
        let full = |state: &mut State<J>| state.open && state.unwaited >= UNWAITED;
        let mut state = self.room.wait_while(self.state(), full).unwrap_or_else(PoisonError::into_inner);
        if !state.open {
            return Err(Closed);
        }
        state.unwaited += 1;
        state.jobs.push_back((false, job));
        self.work.notify_one();
        Ok(())
    }

    /// Waits for jobs, at most so long where a time is given, and takes up to `most`. `None`: closed, and nothing is left.
    pub(crate) fn take(&self, most: usize, patience: Option<Duration>) -> Option<Vec<J>> {
        let idle = |state: &mut State<J>| state.open && state.jobs.is_empty();
        let mut state = match patience {
            Some(patience) => self.work.wait_timeout_while(self.state(), patience, idle).unwrap_or_else(PoisonError::into_inner).0,
            None => self.work.wait_while(self.state(), idle).unwrap_or_else(PoisonError::into_inner),
        };
        if state.jobs.is_empty() && !state.open {
            return None;
        }
        let alone = |state: &mut State<J>| state.open && state.waited == 0 && state.jobs.len() < most;
        state = self.work.wait_timeout_while(state, HELD, alone).unwrap_or_else(PoisonError::into_inner).0;
        let count = state.jobs.len().min(most);
        let taken: Vec<(bool, J)> = state.jobs.drain(..count).collect();
        state.waited -= taken.iter().filter(|(waited, _)| *waited).count();
        Some(taken.into_iter().map(|(_, job)| job).collect())
    }

    /// So many of the jobs that nobody waits for are done.
    pub(crate) fn settle(&self, count: usize) {
        let mut state = self.state();
        state.unwaited = state.unwaited.saturating_sub(count);
        drop(state);
        self.room.notify_all();
    }

    /// Jobs that nobody waits for and that are not done.
    pub(crate) fn unwaited(&self) -> usize {
        self.state().unwaited
    }

    /// Takes nothing any more; what is in it will still be taken out.
    pub(crate) fn close(&self) {
        self.state().open = false;
        self.work.notify_all();
        self.room.notify_all();
    }

    /// Closes, and throws away what nobody will ever take.
    pub(crate) fn abandon(&self) {
        self.close();
        let mut state = self.state();
        state.jobs.clear();
        state.waited = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn whoever_brings_too_much_waits_for_room() {
        let queue = Queue::new();
        (0..UNWAITED).for_each(|job| queue.leave(job).unwrap());
        queue.bring(7).unwrap();
        let (done, seen) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                queue.leave(8).unwrap();
                done.send(()).unwrap();
            });
            assert_eq!(queue.take(UNWAITED + 1, None).unwrap().len(), UNWAITED + 1);
            assert_eq!(seen.recv_timeout(Duration::from_millis(50)), Err(mpsc::RecvTimeoutError::Timeout), "taken is not done");
            queue.settle(1);
            seen.recv_timeout(Duration::from_secs(30)).unwrap();
        });
        assert_eq!(queue.take(9, None).unwrap(), [8]);
    }

    #[test]
    fn what_nobody_waits_for_goes_along_with_what_somebody_does() {
        let queue = Queue::new();
        std::thread::scope(|scope| {
            queue.leave(1).unwrap();
            let taking = scope.spawn(|| queue.take(9, None));
            queue.bring(2).unwrap();
            let taken = taking.join().unwrap().unwrap();
            // The second may have come too late to go along; then it goes at once.
            assert!(taken == [1, 2] || (taken == [1] && queue.take(9, None).unwrap() == [2]), "{taken:?}");
        });
        queue.leave(3).unwrap();
        assert_eq!(queue.take(9, None).unwrap(), [3], "nothing is held back for ever");
        assert_eq!(queue.state().waited, 0);
    }

    #[test]
    fn closing_lets_everybody_go() {
        let queue = Queue::new();
        (0..UNWAITED).for_each(|job| queue.leave(job).unwrap());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| queue.leave(1));
            queue.close();
            assert_eq!(waiting.join().unwrap(), Err(Closed));
        });
        assert_eq!(queue.bring(1), Err(Closed));
        assert_eq!(queue.take(UNWAITED, None).unwrap().len(), UNWAITED, "what was taken in is still done");
        assert_eq!(queue.take(1, None), None);
        assert_eq!(queue.take(1, Some(Duration::ZERO)), None);
    }
}
