//! What runs below belljar: the launcher, which starts sandboxes and templates and takes them along when it ends, and init,
//! the first process of each sandbox.
//!
//! Both are one small static program without threads. The reading order is [`launcher`], [`template`], [`init`], [`confine`],
//! [`supervise`], [`runner`].

pub mod launcher;
pub mod root;
pub mod template;
pub mod users;

pub mod confine;
pub mod init;
pub mod runner;
pub mod supervise;
pub mod watchdog;

#[cfg(feature = "fuzzing")]
pub mod fuzzing;

mod channel;
mod sys;
mod upload;

/// Leaves at once, after a bug of ours: the host sees the channel close.
pub fn leave() -> ! {
    sys::exit_now(4)
}
