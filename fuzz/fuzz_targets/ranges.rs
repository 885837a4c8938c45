//! Ranges of files, on both surfaces: never a byte beyond the end.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, u64)| {
    let (range, size) = input;
    for range in [range.to_owned(), format!("bytes={range}")] {
        let both = server::fuzzing::ranges(&range, size);
        for (start, length) in both.into_iter().flatten() {
            assert!(length > 0 && start < size && length <= size - start, "{range} of {size}: {start} {length}");
        }
    }
});
