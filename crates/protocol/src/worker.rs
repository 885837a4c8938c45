//! Kinds of the frames between init and a language driver; `docs/worker-channel.md` has their payloads.

/// init → worker: the filters to put on, once, before anything else.
pub const SETUP: u8 = 1;
/// init → worker: run this code; two descriptors come along.
pub const EXECUTE: u8 = 2;
/// init → worker: the answer to [`SHELL`].
pub const SHELL_DONE: u8 = 3;
/// init → worker: the last [`DISPLAY`] has its place among the outputs.
pub const TAKEN: u8 = 4;
/// init → worker: the execution sent last is interrupted; SIGINT follows, which alone does not tell for which one it is.
pub const INTERRUPT: u8 = 5;
/// init → worker: code is about to come. Nothing of it is known yet.
pub const WAKE: u8 = 6;
/// worker → init: filters are on, waiting for code.
pub const READY: u8 = 16;
/// worker → init: something to show.
pub const DISPLAY: u8 = 17;
/// worker → init: the value of the last expression.
pub const RESULT: u8 = 18;
/// worker → init: the code raised.
pub const ERROR: u8 = 19;
/// worker → init: the execution is over.
pub const DONE: u8 = 20;
/// worker → init: run this shell command for me.
pub const SHELL: u8 = 21;
