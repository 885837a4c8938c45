//! The frames between host and guest: what belljar, the launcher, init and the workers say to each other.
//!
//! Everything here parses bytes that an attacker may have written: no I/O, checked arithmetic, a limit before every allocation.
//! Three channels use it: belljar ↔ launcher and belljar ↔ init carry [`message`] values, init ↔ worker carries
//! [`worker`] kinds whose payload init passes on unread; launcher and templates exchange the datagrams of [`template`].
#![forbid(unsafe_code)]

pub mod frame;
pub mod message;
pub mod template;
pub mod worker;

pub use frame::{FrameError, FrameReader};
