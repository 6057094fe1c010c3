//! Notes that help to read the results of a bench.

use super::rounds::{Results, Row};
use super::subject::Subject;
use floodtide::backend::MMAP;

/// Returns the notes, each a sentence.
pub(super) fn of(results: &Results) -> Vec<String> {
    let memory = "free memory goes back to this virtual machine's host, so loads that fill their own memory vary";
    let memory = results.machine.gives_memory_back.then(|| memory.to_owned());
    views(results).into_iter().chain(above_the_roofline(results)).chain(memory).collect()
}

/// Returns true if a load ran and its tensors are pages of the page cache.
fn is_view(row: &Row<Subject>) -> bool {
    match (row.what, &row.result) {
        (Subject::By(backend), result) if backend.is_mapped() => result.is_ok(),
        (Subject::PlainMmap, result) => result.is_ok(),
        (Subject::Auto, Ok(timing)) => timing.chosen().is_some_and(|(backend, _)| backend == MMAP.name()),
        _ => false,
    }
}

fn names<'a>(rows: impl Iterator<Item = &'a Row<Subject>>) -> Option<String> {
    let names: Vec<&str> = rows.map(|row| row.what.name()).collect();
    let (last, others) = names.split_last()?;
    Some(if others.is_empty() { (*last).to_owned() } else { format!("{} and {last}", others.join(", ")) })
}

/// Warns that mapped tensors and copied tensors are not the same thing.
fn views(results: &Results) -> Option<String> {
    let copies = results.subjects.iter().any(|row| row.result.is_ok() && !is_view(row));
    let views = names(results.subjects.iter().filter(|row| is_view(row))).filter(|_| copies)?;
    Some(format!(
        "the tensors of {views} are views of the page cache, which other processes share and can evict; the others are copies"
    ))
}

/// Explains results above the roofline.
fn above_the_roofline(results: &Results) -> Vec<String> {
    let Some(limit) = results.limit() else { return Vec::new() };
    let above =
        |row: &&Row<Subject>| row.result.as_ref().is_ok_and(|timing| timing.rates(results.checkpoint.bytes)[1] > limit);
    let explain =
        |rows: Vec<&Row<Subject>>, why: &str| Some(format!("above the roofline: {}, {why}", names(rows.into_iter())?));
    let above = results.subjects.iter().filter(above);
    if results.cold {
        let why =
            "as the device was faster in their runs than in those of the roofline; other programs may have used it";
        return explain(above.collect(), why).into_iter().collect();
    }
    let (views, copies): (Vec<_>, Vec<_>) = above.partition(|row| is_view(row));
    let warm = "as the roofline of cached files is the rate of copies from the page cache";
    let mapped = explain(views, &format!("{warm}, and a mapping copies nothing"));
    mapped.into_iter().chain(explain(copies, &format!("{warm}, which varies from run to run"))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Checkpoint;
    use super::super::child::Measured;
    use super::super::machine::Machine;
    use super::super::roofline::Pattern;
    use super::super::rounds::Timing;
    use super::*;
    use floodtide::backend::PREAD;

    fn timing(seconds: f64, backend: Option<&str>) -> Timing {
        let run = Measured {
            seconds,
            cpu_seconds: seconds,
            peak_rss_bytes: 1,
            backend: backend.map(str::to_owned),
            reason: String::new(),
            checksums: None,
        };
        Timing { runs: vec![run] }
    }

    /// Returns results for a checkpoint of 1 GiB with a roofline of 1 GiB/s.
    fn results(cold: bool, subjects: Vec<(Subject, Result<Timing, String>)>) -> Results {
        let pattern = Pattern::candidates(cold, !cold)[0];
        Results {
            checkpoint: Checkpoint { path: "x".into(), files: vec![], file_bytes: 1 << 30, tensors: 1, bytes: 1 << 30 },
            machine: Machine { gives_memory_back: false, ..Machine::of("/".as_ref()) },
            cold,
            runs: 1,
            subjects: subjects.into_iter().map(|(what, result)| Row { what, result }).collect(),
            roofline: vec![Row { what: pattern, result: Ok(timing(1.0, None)) }],
            disturbed: Some(0.0),
            agree: true,
        }
    }

    #[test]
    fn views_are_told_from_copies_where_there_are_both() {
        let mapped = |subject| (subject, Ok(timing(2.0, Some("mmap"))));
        let both = results(
            false,
            vec![mapped(Subject::By(MMAP)), (Subject::StdRead, Ok(timing(2.0, None))), mapped(Subject::Auto)],
        );
        let notes = of(&both);
        assert!(notes.len() == 1 && notes[0].contains("of mmap and auto are views of the page cache"), "{notes:?}");
        assert_eq!(of(&results(false, vec![mapped(Subject::PlainMmap)])), [""; 0], "there is nothing to tell it from");
        let alone = vec![(Subject::By(MMAP), Err("no".to_owned())), (Subject::StdRead, Ok(timing(2.0, None)))];
        assert_eq!(of(&results(false, alone)), [""; 0], "it did not run");
    }

    #[test]
    fn what_is_above_the_roofline_is_explained() {
        let subjects = || {
            vec![
                (Subject::By(MMAP), Ok(timing(0.5, Some("mmap")))),
                (Subject::By(PREAD), Ok(timing(0.9, Some("pread")))),
                (Subject::StdRead, Ok(timing(1.1, None))),
            ]
        };
        let notes = |cold| of(&results(cold, subjects())).split_off(1);
        let warm = notes(false);
        assert!(warm[0].starts_with("above the roofline: mmap, ") && warm[0].contains("copies nothing"), "{warm:?}");
        assert!(warm[1].starts_with("above the roofline: pread, ") && warm[1].contains("varies"), "{warm:?}");
        let cold = notes(true);
        let words = "above the roofline: mmap and pread, as the device was faster";
        assert!(cold.len() == 1 && cold[0].starts_with(words), "{cold:?}");
    }
}
