//! Bodies of uploads: pieces make no difference, and no more comes out than went in.
#![no_main]

use libfuzzer_sys::fuzz_target;
use server::fuzzing::aca::multipart;

fuzz_target!(|input: (bool, u8, &[u8])| {
    let (sniffed, step, body) = input;
    let content_type: &[u8] = if sniffed { b"application/json" } else { b"multipart/form-data; boundary=f0" };
    let whole = multipart(content_type, body, usize::MAX, 1 << 20);
    assert_eq!(multipart(content_type, body, usize::from(step) + 1, 1 << 20), whole);
    if let Some(parts) = &whole {
        let content: usize = parts.iter().map(|(_, _, content)| content.len()).sum();
        assert!(content <= body.len() && parts.len() <= 100);
    }
    assert!(multipart(content_type, body, 7, body.len() as u64 / 2).is_none_or(|parts| parts.iter().map(|part| part.2.len()).sum::<usize>() <= body.len() / 2));
});
