//! Arbitrary options of a plan, within what the planner's documentation allows.

use arbitrary::{Arbitrary, Result, Unstructured};
use floodtide_core::{Access, Alignment, Buffers, ByteRange, Catalog, DirectLimits, MemoryLimit, Order, PlanOptions};

/// What the planner is asked for, but for the memory limit.
///
/// # Errors
/// As [`Unstructured`] does.
pub fn options(u: &mut Unstructured<'_>, catalog: &Catalog) -> Result<PlanOptions> {
    let mut direct = Vec::new();
    // A file without an entry is not read directly.
    for _ in 0..u.int_in_range(0..=catalog.files().len())? {
        direct.push(if bool::arbitrary(u)? { Some(limits(u)?) } else { None });
    }
    Ok(PlanOptions {
        access: access(u)?,
        direct,
        cached: cached(u, catalog)?,
        // An arena starts at a huge page, so that no tensor can be aligned to more.
        tensor_alignment: alignment(u, 21)?,
        chunk_bytes: magnitude(u)?,
        file_chunk_bytes: Vec::new(),
        max_merge_gap: magnitude(u)?,
        max_read_gap: PlanOptions::default().max_read_gap,
        max_gather_reads: u.int_in_range(0..=200)?,
        memory: None,
    })
}

/// Ascending ranges of each file, none touching the next.
fn cached(u: &mut Unstructured<'_>, catalog: &Catalog) -> Result<Vec<Vec<ByteRange>>> {
    let mut files = Vec::new();
    for _ in 0..u.int_in_range(0..=catalog.files().len())? {
        let mut ranges = Vec::new();
        let mut at = 0_u64;
        for _ in 0..u.int_in_range(0..=3)? {
            let start = at.saturating_add(magnitude(u)?);
            at = start.saturating_add(magnitude(u)?);
            ranges.extend(ByteRange::new(start, at));
            // None touches the next.
            at = at.saturating_add(1);
        }
        files.push(ranges);
    }
    Ok(files)
}

/// A limit of the memory.
///
/// # Errors
/// As [`Unstructured`] does.
pub fn memory(u: &mut Unstructured<'_>) -> Result<Option<MemoryLimit>> {
    let limited = bool::arbitrary(u)?;
    Ok(if limited { Some(MemoryLimit { available: magnitude(u)?, limit: "a test".to_owned() }) } else { None })
}

fn access(u: &mut Unstructured<'_>) -> Result<Access> {
    Ok(match u.int_in_range(0_u8..=3)? {
        0 => Access::Copy,
        1 => Access::Map { resident: bool::arbitrary(u)? },
        _ => {
            let buffer_bytes = magnitude(u)?;
            Access::Stream(Buffers {
                buffer_bytes,
                limit: buffer_bytes.saturating_add(magnitude(u)?),
                split: bool::arbitrary(u)?,
                order: *u.choose(&[Order::Completion, Order::File, Order::Selection])?,
            })
        }
    })
}

fn limits(u: &mut Unstructured<'_>) -> Result<DirectLimits> {
    Ok(DirectLimits { offset: alignment(u, 20)?, memory: alignment(u, 20)? })
}

fn alignment(u: &mut Unstructured<'_>, max: u32) -> Result<Alignment> {
    Ok(Alignment::new(1 << u.int_in_range(0..=max)?).unwrap_or(Alignment::ONE))
}

/// A number of any magnitude, each as likely as the others.
///
/// # Errors
/// As [`Unstructured`] does.
pub fn magnitude(u: &mut Unstructured<'_>) -> Result<u64> {
    let bits = u.int_in_range(0..=64)?;
    if bits == 0 { Ok(0) } else { u.int_in_range(0..=u64::MAX >> (64 - bits)) }
}
