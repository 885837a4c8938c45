//! What waits for the writer: bounded, in order, never dropped.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Jobs nobody waits for that may be on their way at once; whoever brings one more waits for room.
pub(crate) const UNWAITED: usize = 2048;

/// Jobs that nobody waits for are held back for so long, for one to come that somebody waits for: then one commit serves both.
const HELD: Duration = Duration::from_millis(10);
/// What could not be done and nobody waits for is tried again after so long.
const RETRY: Duration = Duration::from_millis(250);

/// Jobs on their way to whoever does them, one at a time. Those that somebody waits for are bounded by the threads that wait.
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
    again: bool,
    open: bool,
}

/// The queue takes nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed;

impl<J> Queue<J> {
    pub(crate) fn new() -> Self {
        let state = State { jobs: VecDeque::new(), waited: 0, unwaited: 0, again: false, open: true };
        Self { state: Mutex::new(state), work: Condvar::new(), room: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings a job that its caller waits for.
    pub(crate) fn bring(&self, job: J) -> Result<(), Closed> {
        self.bring_quietly(job)?;
        self.work.notify_one();
        Ok(())
    }

    /// As [`Self::bring`], for who will drain the queue itself: nobody is woken.
    pub(crate) fn bring_quietly(&self, job: J) -> Result<(), Closed> {
        let mut state = self.state();
        if !state.open {
            return Err(Closed);
        }
        state.waited += 1;
        state.jobs.push_back((true, job));
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

    /// Waits until there is something to do: jobs, or what could not be done and is due again. False: closed, and no job is left.
    pub(crate) fn wait(&self, most: usize) -> bool {
        let idle = |state: &mut State<J>| state.open && state.jobs.is_empty();
        let asleep = |state: &mut State<J>| state.open && state.jobs.is_empty() && !state.again;
        let mut state = self.work.wait_while(self.state(), asleep).unwrap_or_else(PoisonError::into_inner);
        if state.again {
            state = self.work.wait_timeout_while(state, RETRY, idle).unwrap_or_else(PoisonError::into_inner).0;
        }
        if state.jobs.is_empty() {
            return state.open;
        }
        let alone = |state: &mut State<J>| state.open && state.waited == 0 && (1..most).contains(&state.jobs.len());
        drop(self.work.wait_timeout_while(state, HELD, alone).unwrap_or_else(PoisonError::into_inner));
        true
    }

    /// Whether something could not be done, and is to be tried again in a while.
    pub(crate) fn again(&self, again: bool) {
        let before = std::mem::replace(&mut self.state().again, again);
        if again && !before {
            self.work.notify_one();
        }
    }

    /// Takes up to `most` of what is there.
    pub(crate) fn drain(&self, most: usize) -> Vec<J> {
        let mut state = self.state();
        let count = state.jobs.len().min(most);
        let taken: Vec<(bool, J)> = state.jobs.drain(..count).collect();
        state.waited -= taken.iter().filter(|(waited, _)| *waited).count();
        taken.into_iter().map(|(_, job)| job).collect()
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

    impl<J> Queue<J> {
        fn take(&self, most: usize) -> Option<Vec<J>> {
            self.wait(most).then(|| self.drain(most))
        }
    }

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
            assert_eq!(queue.take(UNWAITED + 1).unwrap().len(), UNWAITED + 1);
            assert_eq!(seen.recv_timeout(Duration::from_millis(50)), Err(mpsc::RecvTimeoutError::Timeout), "taken is not done");
            queue.settle(1);
            seen.recv_timeout(Duration::from_secs(30)).unwrap();
        });
        assert_eq!(queue.take(9).unwrap(), [8]);
    }

    #[test]
    fn what_nobody_waits_for_goes_along_with_what_somebody_does() {
        let queue = Queue::new();
        std::thread::scope(|scope| {
            queue.leave(1).unwrap();
            let taking = scope.spawn(|| queue.take(9));
            queue.bring(2).unwrap();
            let taken = taking.join().unwrap().unwrap();
            // The second may have come too late to go along; then it goes at once.
            assert!(taken == [1, 2] || (taken == [1] && queue.take(9).unwrap() == [2]), "{taken:?}");
        });
        queue.leave(3).unwrap();
        assert_eq!(queue.take(9).unwrap(), [3], "nothing is held back for ever");
        assert_eq!(queue.state().waited, 0);
    }

    #[test]
    fn what_could_not_be_done_is_due_again_whoever_tried_it() {
        let queue = Queue::<u8>::new();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| queue.take(9));
            queue.again(true);
            assert_eq!(waiting.join().unwrap(), Some(Vec::new()), "with no job to wake for");
            assert!(queue.wait(9), "and again, until it is done");
            queue.again(false);
            let waiting = scope.spawn(|| queue.take(9));
            queue.bring(1).unwrap();
            assert_eq!(waiting.join().unwrap().unwrap(), [1], "then there has to be one");
        });
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
        assert_eq!(queue.take(UNWAITED).unwrap().len(), UNWAITED, "what was taken in is still done");
        assert_eq!(queue.take(1), None);
    }
}
