//! Whole files for our parser and the reference.
//!
//! Both must accept or both refuse, except for our two stricter rules. What they accept they must
//! read alike.

#![no_main]

use floodtide_core::format::safetensors::{Header, HeaderError, header_range};
use libfuzzer_sys::fuzz_target;
use safetensors::SafeTensors;

fn ours(file: &[u8]) -> Result<Header<'_>, HeaderError> {
    let range = header_range(file, file.len() as u64)?;
    Header::parse(&file[range.start() as usize..range.end() as usize], file.len() as u64)
}

/// Returns true for the rules that only we have: duplicate names and keys.
fn is_stricter(error: &HeaderError) -> bool {
    match error {
        HeaderError::DuplicateName { .. } => true,
        HeaderError::Entry { message, .. } => message.contains("occurs twice"),
        _ => false,
    }
}

fuzz_target!(|file: &[u8]| {
    match (ours(file), SafeTensors::read_metadata(file)) {
        (Ok(ours), Ok((n, theirs))) => {
            let start = 8 + n as u64;
            assert_eq!(ours.data_start(), start);
            assert_eq!(ours.entries().len(), theirs.tensors().len());
            for entry in ours.entries() {
                let info = theirs.info(&entry.name).expect("the reference has it too");
                let (begin, end) = info.data_offsets;
                assert_eq!((entry.range.start(), entry.range.end()), (start + begin as u64, start + end as u64));
                assert_eq!(entry.dtype.name(), format!("{:?}", info.dtype));
                assert!(ours.shape(entry).iter().copied().eq(info.shape.iter().map(|&dim| dim as u64)));
            }
        }
        (Err(error), Ok(_)) => assert!(is_stricter(&error), "we alone refuse: {error}"),
        (Ok(_), Err(error)) => panic!("the reference alone refuses: {error}"),
        (Err(_), Err(_)) => {}
    }
});
