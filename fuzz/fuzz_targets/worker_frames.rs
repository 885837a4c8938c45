//! What a worker says of its execution, as the engine reads it: displays, values, errors, streams.
#![no_main]

use engine::Stream;
use libfuzzer_sys::{arbitrary, fuzz_target};
use protocol::message::FromInit;

#[derive(Debug, arbitrary::Arbitrary)]
enum Said<'a> {
    Display(&'a [u8]),
    Result(&'a [u8]),
    Error(&'a [u8]),
    Other(u8, &'a [u8]),
    Stdout(&'a [u8]),
    Stderr(&'a [u8]),
    OfAnother(&'a [u8]),
}

fn message(said: Said<'_>) -> FromInit {
    let (execution, worker) = (1, |kind, payload: &[u8]| FromInit::Worker { execution: 1, kind, payload: payload.to_vec() });
    match said {
        Said::Display(payload) => worker(protocol::worker::DISPLAY, payload),
        Said::Result(payload) => worker(protocol::worker::RESULT, payload),
        Said::Error(payload) => worker(protocol::worker::ERROR, payload),
        Said::Other(kind, payload) => worker(kind, payload),
        Said::Stdout(bytes) => FromInit::Output { execution, stream: Stream::Stdout, bytes: bytes.to_vec() },
        Said::Stderr(bytes) => FromInit::Output { execution, stream: Stream::Stderr, bytes: bytes.to_vec() },
        Said::OfAnother(bytes) => FromInit::Output { execution: 2, stream: Stream::Stdout, bytes: bytes.to_vec() },
    }
}

fuzz_target!(|said: Vec<Said<'_>>| {
    let bytes: usize = said.iter().map(|said| std::mem::size_of_val(said)).sum();
    let (execution, _) = engine::fuzzing::execution(said.into_iter().map(message).collect()).expect("the code's doing is no error of ours");
    let text = serde_json::to_string(&execution).expect("it can be shown");
    let again: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    assert_eq!(again["outputs"].as_array().map(Vec::len), Some(execution.outputs.len()));
    for output in &execution.outputs {
        assert!(output.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)), "{}", output.name);
    }
    // Names and types of values stand at most a few times in what is told.
    assert!(text.len() < 100 * (bytes + 1024) * 100);
});
