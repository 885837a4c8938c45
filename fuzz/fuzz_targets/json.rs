//! Callers' documents: what is taken is what serde_json takes, but for keys that stand there twice and for too many values.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};

fuzz_target!(|bytes: &[u8]| {
    let (ours, theirs) = (server::fuzzing::json(bytes), serde_json::from_slice::<Map<String, Value>>(bytes));
    match (&ours, &theirs) {
        (Some(one), Ok(other)) => assert_eq!(one, other),
        (Some(_), Err(error)) => panic!("taken, but not JSON: {error}"),
        // Written again, each key stands there once.
        (None, Ok(other)) => assert_eq!(server::fuzzing::json(serde_json::to_string(other).expect("it is JSON").as_bytes()).as_ref(), Some(other)),
        (None, Err(_)) => {}
    }
    let _ = server::fuzzing::aca::is_request(bytes);
});
