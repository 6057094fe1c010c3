//! Sorts many names with long common prefixes.

use alloc::vec::Vec;

/// Returns the indices of the names, sorted by the names' bytes and then by index.
///
/// Tensor names share a long prefix, which a plain sort would compare repeatedly. Here the key is
/// the 16 bytes after it, and names are compared only if their keys are equal. 100,000 names take a
/// few milliseconds.
pub(crate) fn sorted_by_name<'n>(names: impl ExactSizeIterator<Item = &'n str> + Clone) -> Vec<u32> {
    let Some(first) = names.clone().next() else { return Vec::new() };
    let shared = names.clone().fold(first.len(), |shared, name| {
        let same = first.as_bytes()[..shared].iter().zip(name.as_bytes()).take_while(|(a, b)| a == b).count();
        shared.min(same)
    });
    let texts: Vec<&[u8]> = names.map(|name| &name.as_bytes()[shared..]).collect();
    let mut keyed: Vec<(u128, u32)> = texts.iter().zip(0..).map(|(text, number)| (key(text), number)).collect();
    keyed.sort_unstable_by(|a, b| {
        // Equal keys usually mean equal prefixes, but the padding of a short name may equal zeros
        // in another.
        a.0.cmp(&b.0).then_with(|| texts[a.1 as usize].cmp(texts[b.1 as usize])).then(a.1.cmp(&b.1))
    });
    keyed.into_iter().map(|(_, number)| number).collect()
}

/// Returns the first 16 bytes, padded with zeros, as a number with the same order.
fn key(text: &[u8]) -> u128 {
    let mut bytes = [0; 16];
    let len = text.len().min(16);
    bytes[..len].copy_from_slice(&text[..len]);
    u128::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_order_is_that_of_a_stable_sort(
            beginning in "[a-c\0]{0,5}", ends in prop::collection::vec("[ab\0é]{0,20}", 0..60),
        ) {
            let names: Vec<String> = ends.iter().map(|end| beginning.clone() + end).collect();
            let mut expected: Vec<u32> = (0..names.len() as u32).collect();
            expected.sort_by_key(|&number| &names[number as usize]);
            prop_assert_eq!(sorted_by_name(names.iter().map(String::as_str)), expected);
        }
    }
}
