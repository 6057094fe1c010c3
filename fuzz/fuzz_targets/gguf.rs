//! Arbitrary bytes as the start of a GGUF file of any length.
//!
//! The parser must not panic, and must give the same verdict however much is read at once. Accepted
//! tensors must be in valid places.

#![no_main]

use floodtide_core::format::gguf::{GgufError, Header, Parsed, Split, Value, parse};
use libfuzzer_sys::fuzz_target;

/// Checks independently that tensors are in order, aligned, within the file, and as long as their
/// shapes.
fn check(header: &Header<'_>, file_len: u64) {
    let alignment = u128::from(header.alignment().as_u64());
    let mut next = u128::from(header.data_start());
    for entry in header.entries() {
        assert_eq!(u128::from(entry.range.start()), next);
        let elements: u128 = entry.shape().map(u128::from).product();
        let (block, bytes) = (u128::from(entry.ggml.block_elements()), u128::from(entry.ggml.block_bytes()));
        assert_eq!(u128::from(entry.range.len()), elements / block * bytes);
        assert!(entry.range.end() <= file_len && entry.name.len() < 64);
        next = u128::from(entry.range.end()).next_multiple_of(alignment);
    }
    for (key, value) in header.metadata() {
        assert!(!key.is_empty());
        if let Value::Array(array) = value {
            assert_eq!(array.iter().take(1000).count() as u64, array.count.min(1000));
            assert!(array.range.end() <= header.data_start());
        }
    }
    let mut names: Vec<&str> = header.entries().iter().map(|entry| entry.name).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    let _ = Split::of(header);
}

/// Returns the verdict if no more is read than requested.
fn in_steps(file: &[u8], file_len: u64) -> Option<Result<(), GgufError>> {
    let mut read = 0;
    loop {
        match parse(&file[..read], file_len) {
            Ok(Parsed::Header(_)) => return Some(Ok(())),
            Err(error) => return Some(Err(error)),
            Ok(Parsed::Needs(bytes)) => {
                assert!(bytes > read as u64 && bytes <= file_len);
                read = usize::try_from(bytes).ok().filter(|&bytes| bytes <= file.len())?;
            }
        }
    }
}

fuzz_target!(|input: (u32, &[u8])| {
    let (beyond, start) = input;
    // The file extends past the given bytes, often not at all.
    let file_len = start.len() as u64 + u64::from(beyond) * u64::from(beyond & 1);
    let whole = match parse(start, file_len) {
        Ok(Parsed::Header(header)) => {
            check(&header, file_len);
            Some(Ok(()))
        }
        Ok(Parsed::Needs(bytes)) => {
            assert!(bytes > start.len() as u64 && bytes <= file_len);
            None
        }
        Err(error) => Some(Err(error)),
    };
    match (whole, in_steps(start, file_len)) {
        // An excessive length is detected at different places.
        (Some(Err(_)) | None, Some(Err(GgufError::HeaderTooLarge { .. }))) => {}
        (Some(Ok(())), steps) => assert_eq!(steps, Some(Ok(()))),
        (Some(Err(error)), Some(steps)) => assert_eq!(Err(error), steps),
        // More bytes than exist might be needed to decide.
        (_, None) => {}
        (None, Some(steps)) => panic!("less is enough for {steps:?}"),
    }
});
