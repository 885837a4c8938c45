//! `Content-Disposition` both ways, and whatever stands in a multipart head.
#![no_main]

use libfuzzer_sys::fuzz_target;
use server::fuzzing::{aca, disposition};

fuzz_target!(|name: &[u8]| {
    let header = disposition(name);
    assert!(header.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '), "{header}");
    let parameters = aca::parameters(header.as_bytes());
    let find = |wanted: &[u8]| parameters.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone());
    assert!(parameters.len() <= 2 && find(b"filename").is_some_and(|plain| !plain.is_empty()), "{header}");
    let text = String::from_utf8_lossy(name);
    if let Some(coded) = find(b"filename*") {
        let coded = String::from_utf8(coded).expect("it is ASCII");
        let coded = coded.strip_prefix("UTF-8''").expect("its character set stands first");
        assert_eq!(percent_encoding::percent_decode_str(coded).collect::<Vec<u8>>(), text.as_bytes());
    } else {
        // A parser may trim what stands in quotes; ours does not.
        assert_eq!(find(b"filename").unwrap_or_default(), text.as_bytes(), "{header}");
    }
    let total: usize = aca::parameters(name).iter().map(|(name, value)| name.len() + value.len()).sum();
    assert!(total <= name.len());
});
