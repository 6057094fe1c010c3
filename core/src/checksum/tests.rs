use super::*;
use alloc::string::ToString;
use alloc::vec;
use proptest::prelude::*;

/// Bytes that distinguish every leaf and every offset in it.
fn input(len: usize) -> Vec<u8> {
    (0..len as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u8 ^ (at / LEAF) as u8).collect()
}

/// The parts of an input between `cuts`, in the order of `keys`.
fn in_parts(input: &[u8], cuts: &[usize], keys: &[u32]) -> (TreeHash, Option<Checksum>) {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (input.len() + 1)).collect();
    ends.extend([0, input.len()]);
    ends.sort_unstable();
    let mut parts: Vec<(u32, usize, usize)> =
        ends.windows(2).enumerate().map(|(i, ends)| (keys[i % keys.len()], ends[0], ends[1])).collect();
    parts.sort_unstable();
    let mut hash = TreeHash::new(input.len() as u64);
    let mut last = None;
    for (done, &(_, start, end)) in parts.iter().enumerate() {
        last = hash.add(&hash_range(input.len() as u64, start as u64, &input[start..end]));
        let rest = parts[done + 1..].iter().any(|(_, start, end)| start < end);
        assert_eq!(last.is_some(), !rest, "it is whole with the last byte, not before");
    }
    (hash, last)
}

/// Lengths at the edges of leaves and of trees, and one byte beside.
fn edges() -> impl Iterator<Item = usize> {
    let leaves = [0, 1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 31, 32, 33, 64, 65, 100, 1024, 1025];
    let around = |leaves: usize| [(leaves * 1024).saturating_sub(1), leaves * 1024, leaves * 1024 + 1];
    leaves.into_iter().flat_map(around)
}

#[test]
fn every_length_at_an_edge_cut_anywhere_is_hashed_as_a_whole() {
    for len in edges() {
        let input = input(len);
        let whole = Some(Checksum::of(&input));
        assert_eq!(in_parts(&input, &[], &[0]).1, whole, "{len} at once");
        for cut in [1, 512, 1023, 1024, 1025, 2048, 4096, 5000, 8192, 65_536, 1 << 20] {
            let cuts: Vec<usize> = (1..).map(|i| i * cut).take_while(|&at| at < len).take(3000).collect();
            for keys in [&[0][..], &[1, 0], &[2, 0, 1], &[9, 3, 7, 1, 5]] {
                assert_eq!(in_parts(&input, &cuts, keys).1, whole, "{len} in parts of {cut}, by {keys:?}");
            }
        }
    }
}

#[test]
fn nothing_is_kept_of_what_is_done() {
    let input = input(1 << 20);
    let cuts: Vec<usize> = (1..100).map(|i| i * 10_007).collect();
    let (hash, whole) = in_parts(&input, &cuts, &[3, 1, 2]);
    assert!(whole.is_some() && hash.waiting.is_empty() && hash.unfinished.is_empty());
}

#[test]
fn parts_in_their_order_are_kept_as_few_nodes() {
    let input = vec![7; 4 << 20];
    let mut hash = TreeHash::new(input.len() as u64);
    for (i, part) in input.chunks(100_000).enumerate() {
        hash.add(&hash_range(input.len() as u64, i as u64 * 100_000, part));
        // One for each level of the tree, and a leaf in two parts.
        assert!(hash.waiting.len() <= 12 && hash.unfinished.len() <= 1, "{}", hash.waiting.len());
    }
}

#[test]
fn a_byte_that_is_another_is_another_hash() {
    let mut input = input(70_000);
    let whole = Checksum::of(&input);
    for at in [0, 1023, 1024, 35_000, 69_999] {
        input[at] ^= 1;
        assert_ne!(in_parts(&input, &[30_000, 40_000], &[2, 1, 0]).1, Some(whole), "byte {at}");
        input[at] ^= 1;
    }
}

#[test]
fn an_input_beyond_32_bits_has_the_nodes_of_its_place() {
    let total = 5_u64 << 30;
    let mut hash = TreeHash::new(total);
    let part = vec![0; 64 << 20];
    let mut reference = blake3::Hasher::new();
    // Only the last part, because hashing all 80 takes as long as their bytes.
    let far = hash_range(total, total - part.len() as u64, &part);
    assert_eq!(far.nodes.len(), 1);
    let place = far.nodes[0].0;
    assert_eq!(place, (16, 79));
    reference.set_input_offset(total - part.len() as u64).update(&part);
    assert_eq!(far.nodes[0].1, reference.finalize_non_root());
    assert_eq!(hash.add(&far), None);
    assert_eq!(hash.waiting.keys().copied().collect::<Vec<_>>(), [place]);
}

#[test]
fn hexadecimal_is_lower_case_and_of_64_digits() {
    let checksum = Checksum::of(b"");
    let text = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
    assert_eq!((checksum.to_string().as_str(), text.parse()), (text, Ok(checksum)));
    assert_eq!(alloc::format!("{checksum:?}"), text);
    let upper = text.to_uppercase();
    for bad in ["", &text[1..], &upper, &text.replace('f', "g"), &alloc::format!("{text}0"), &"é".repeat(32)] {
        assert_eq!(bad.parse::<Checksum>(), Err(NotHex), "{bad}");
    }
}

proptest! {
    #[test]
    fn any_parts_in_any_order_are_hashed_as_a_whole(
        len in prop_oneof![0_usize..5000, 0_usize..300_000],
        cuts in proptest::collection::vec(any::<usize>(), 0..40),
        keys in proptest::collection::vec(any::<u32>(), 1..40),
    ) {
        let input = input(len);
        prop_assert_eq!(in_parts(&input, &cuts, &keys).1, Some(Checksum::of(&input)));
    }
}
