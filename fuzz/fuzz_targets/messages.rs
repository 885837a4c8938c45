//! Messages of every channel that carries them: what is read can be written, and is read the same again.
#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use protocol::message::{self, FromInit, FromLauncher, MESSAGE_KIND, Supply, ToInit, ToLauncher};
use protocol::frame::HEADER_BYTES;
use serde::Serialize;
use serde::de::DeserializeOwned;

fn check<M: Serialize + DeserializeOwned + PartialEq + Debug>(payload: &[u8]) {
    let Ok(message) = message::decode::<M>(MESSAGE_KIND, payload) else { return };
    let frame = message::encode(&message).expect("it was read");
    // Numbers may have come in longer forms than we write.
    assert!(frame.len() <= payload.len() + HEADER_BYTES, "a message is not more than its bytes");
    assert_eq!(message::decode::<M>(MESSAGE_KIND, &frame[HEADER_BYTES..]).expect("we wrote it"), message);
}

fuzz_target!(|payload: &[u8]| {
    check::<FromInit>(payload);
    check::<ToInit>(payload);
    check::<FromLauncher>(payload);
    check::<ToLauncher>(payload);
    check::<Supply>(payload);
});
