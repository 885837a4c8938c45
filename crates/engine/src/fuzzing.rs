//! Ways in for the targets of `fuzz/`.

use std::path::PathBuf;

use sandbox::{FromInit, Stream};

use crate::execution::{Execution, Output, Value};
use crate::output::Kept;
use crate::run::{self, Observer, RunRequest};

struct Nobody;

impl Observer for Nobody {
    fn wrote(&mut self, _: Stream, _: &[u8]) {}
    fn showed(&mut self, _: &Output) {}
    fn result(&mut self, _: &Value) {}
}

/// What messages of init come to, and how many of them were taken before there was too much.
///
/// # Panics
/// Where no random numbers are to be had.
#[must_use]
pub fn execution(messages: Vec<FromInit>) -> Option<(Execution, usize)> {
    run::collect(&RunRequest::warm_up("core", PathBuf::new()), messages, &mut Nobody).ok()
}

/// What is kept of a stream that is written in these pieces, and whether something was left out.
#[must_use]
pub fn kept(pieces: &[&[u8]], keep: usize) -> (String, bool) {
    let mut kept = Kept::new(keep);
    pieces.iter().for_each(|piece| kept.push(piece));
    kept.text()
}
