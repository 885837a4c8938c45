//! Ctrl-C: the first interrupts the code on the server, the second kills it, and while nothing runs it ends belljar with its session.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use hyper::Method;
use serde_json::Value as Json;

use crate::client::Server;
use crate::exit;

/// What a signal reaches.
#[derive(Debug)]
pub(super) struct Stop {
    server: Server,
    state: Mutex<State>,
}

#[expect(clippy::exit, reason = "no code runs, so there is nothing to wait for")]
fn give_up() {
    std::process::exit(i32::from(exit::FAILED));
}

#[derive(Debug, Default)]
struct State {
    asked: u32,
    /// Where what runs is interrupted.
    running: Option<String>,
    /// Where the session is ended.
    session: Option<String>,
    over: bool,
}

impl Stop {
    /// Listens for signals from now on.
    pub(super) fn listen(server: &Server) -> anyhow::Result<Arc<Self>> {
        use signal_hook::consts::{SIGINT, SIGTERM};
        let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM]).context("cannot listen for signals")?;
        let stop = Arc::new(Self { server: server.clone(), state: Mutex::default() });
        let listening = Arc::clone(&stop);
        std::thread::spawn(move || signals.forever().for_each(|_| listening.ask()));
        Ok(stop)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self) {
        let (running, session) = {
            let mut state = self.state();
            state.asked = state.asked.saturating_add(1);
            // Before anything runs, whoever is at work looks by itself, and is given up at the second time.
            if state.running.is_none() && !state.over && state.asked == 1 {
                return;
            }
            (state.running.clone(), state.session.clone())
        };
        match running {
            Some(path) => self.interrupt(&path),
            None => {
                if let Some(path) = session {
                    let _ = self.server.call::<Json>(Method::DELETE, &path, None);
                }
                give_up();
            }
        }
    }

    fn interrupt(&self, path: &str) {
        // Over already, or out of reach: the one who reads its events hears of both.
        let _ = self.server.call::<Json>(Method::POST, path, None);
    }

    /// Whether somebody wants an end.
    pub(super) fn asked(&self) -> bool {
        self.state().asked > 0
    }

    /// The session is ended there.
    pub(super) fn ends_with(&self, session: String) {
        self.state().session = Some(session);
    }

    /// Code runs, and is interrupted there.
    pub(super) fn began(&self, path: String) {
        let asked = {
            let mut state = self.state();
            state.running = Some(path.clone());
            state.asked
        };
        (0..asked.min(2)).for_each(|_| self.interrupt(&path));
    }

    /// Kills what runs.
    pub(super) fn kill(&self) {
        let running = self.state().running.clone();
        if let Some(path) = running {
            self.interrupt(&path);
            self.interrupt(&path);
        }
    }

    /// No code runs any more.
    pub(super) fn over(&self) {
        let mut state = self.state();
        state.running = None;
        state.over = true;
    }
}
