//! Datagrams of a template.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::message::Exit;
use protocol::template::{FromTemplate, parse};

fuzz_target!(|datagram: &[u8]| {
    match parse(datagram) {
        Some(FromTemplate::Says { text: rest, .. }) => assert_eq!(rest.len() + 1, datagram.len()),
        Some(FromTemplate::Refused { reason, .. }) => assert_eq!(reason.len() + 9, datagram.len()),
        Some(FromTemplate::Forked { .. }) => assert_eq!(datagram.len(), 13),
        Some(FromTemplate::Ended { exit, .. }) => {
            assert_eq!(datagram.len(), 9);
            assert!(matches!(exit, Exit::Code(0..=255) | Exit::Signal(1..=127)));
        }
        None => {}
    }
});
