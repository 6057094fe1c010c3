//! `floodtide probe`: measures a device, prints tables, and stores the result for later loads with
//! `--store`.

use crate::args::ProbeArgs;
use crate::output::{self, Facts, Failure};
use floodtide::core::{Escaped, HumanBytes};
use floodtide::probe::profile;
use floodtide::roofline::{CHUNKS, Cell, DEPTHS, Rate, ReadMethod, Roofline};
use serde_json::{Value, json};
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

/// The outcome of `--store`.
enum Stored {
    NotRequested,
    At(PathBuf),
    Refused(String),
}

pub(crate) fn run(args: &ProbeArgs) -> Result<(), Failure> {
    let on_step = |step: &str| {
        if !args.json {
            output::complain("probe", step);
        }
    };
    let roofline = floodtide::measure(&args.folder, Duration::from_secs_f64(args.seconds), on_step)?;
    let stored = if args.store { store(&roofline) } else { Stored::NotRequested };
    roofline.notes.iter().for_each(|note| output::complain("warning", note));
    if args.json {
        output::print_json(&document(args, &roofline, &stored))?;
    } else {
        show(&mut output::stdout(), &roofline, &stored)?;
    }
    match stored {
        Stored::Refused(why) => Err(Failure::Failed(format!("the profile was not stored: {why}"))),
        _ => Ok(()),
    }
}

fn store(roofline: &Roofline) -> Stored {
    let stored = roofline.profile().and_then(|profile| profile::store(&profile).map_err(|error| error.to_string()));
    match stored {
        Ok(path) => Stored::At(path),
        Err(why) => Stored::Refused(why),
    }
}

fn gib(bytes_per_second: f64) -> f64 {
    bytes_per_second / f64::from(1 << 30)
}

/// Formats a rate: "3.21 GiB/s (2.90 – 3.40)".
fn rate(rate: &Rate) -> String {
    format!("{:.2} GiB/s ({:.2} – {:.2})", gib(rate.median), gib(rate.min), gib(rate.max))
}

fn title(method: ReadMethod) -> &'static str {
    match (method.ring, method.direct) {
        (true, true) => "io_uring, direct",
        (false, true) => "threads, direct",
        (true, false) => "io_uring, buffered, cold page cache",
        (false, false) => "threads, buffered, cold page cache",
    }
}

fn size(bytes: u64) -> String {
    if bytes < 1 << 20 { format!("{} KiB", bytes >> 10) } else { format!("{} MiB", bytes >> 20) }
}

fn show(out: &mut impl Write, roofline: &Roofline, stored: &Stored) -> io::Result<()> {
    let device = match &roofline.device {
        Ok(device) => format!("{device} ({})", device.identity),
        Err(why) => format!("{}; no profile can be stored: {why}", roofline.file_system),
    };
    let took = output::duration(roofline.elapsed);
    write!(out, "{}", Facts(vec![("device", device), ("read", roofline.origin.clone()), ("took", took)]))?;
    for method in ReadMethod::ALL {
        show_method(out, roofline, method)?;
    }
    writeln!(out)?;
    let memory = |measured: &Option<Rate>| measured.as_ref().map_or_else(|| "not measured".to_owned(), rate);
    let (huge, small) = (memory(&roofline.fault_huge), memory(&roofline.fault_small));
    let mut facts = vec![
        (
            "page cache to huge pages",
            format!("{}, by {}", memory(&roofline.copy), output::count(roofline.cpus, "thread")),
        ),
        ("fresh memory, huge pages", huge),
        ("fresh memory, small pages", small),
    ];
    if let Some(spread) = roofline.spread() {
        let of = "of the median between the slowest and the fastest sample";
        facts.push(("spread", format!("up to {:.0} % {of}, for half of the combinations", spread * 100.0)));
    }
    facts.push((
        "profile",
        match stored {
            Stored::At(path) => {
                format!("stored in {}; loads from this device use it", Escaped(&path.to_string_lossy()))
            }
            Stored::NotRequested => "not stored (--store keeps it for later loads; a profile is optional)".to_owned(),
            Stored::Refused(_) => "not stored".to_owned(),
        },
    ));
    write!(out, "{}", Facts(facts))?;
    out.flush()
}

fn show_method(out: &mut impl Write, roofline: &Roofline, method: ReadMethod) -> io::Result<()> {
    let title = title(method);
    if let Some((_, why)) = roofline.refused.iter().find(|(refused, _)| *refused == method) {
        return writeln!(out, "\n{title}: not supported, {}", Escaped(why));
    }
    let cell = |chunk, depth| {
        let here = |cell: &&Cell| cell.method == method && cell.chunk_bytes == chunk && cell.in_flight == depth;
        roofline.cells.iter().find(here)
    };
    writeln!(out, "\n{title}: GiB/s by read size (down) and reads in flight (across)")?;
    writeln!(out, "{:>8}{}", "", DEPTHS.map(|depth| format!("{depth:>8}")).concat())?;
    for chunk in CHUNKS {
        let figure = |depth| match cell(chunk, depth) {
            Some(cell) => format!("{:>8.2}", gib(cell.rate.median)),
            None => format!("{:>8}", "-"),
        };
        writeln!(out, "{:>8}{}", size(chunk), DEPTHS.map(figure).concat())?;
    }
    match roofline.best(method) {
        Some(Cell { chunk_bytes, in_flight, rate: measured, .. }) => {
            writeln!(out, "best: {}, {in_flight} in flight: {}", HumanBytes(*chunk_bytes), rate(measured))
        }
        None => writeln!(out, "nothing was measured in the available time; use a larger --seconds"),
    }
}

fn document(args: &ProbeArgs, roofline: &Roofline, stored: &Stored) -> Value {
    let figures = |rate: &Rate| json!({"median": rate.median.round(), "min": rate.min.round(), "max": rate.max.round(), "samples": rate.samples});
    let engine = |method: ReadMethod| if method.ring { "uring" } else { "threads" };
    let cell = |cell: &Cell| {
        json!({
            "engine": engine(cell.method),
            "direct": cell.method.direct,
            "chunk_bytes": cell.chunk_bytes,
            "in_flight": cell.in_flight,
            "bytes_per_second": figures(&cell.rate),
        })
    };
    let refused =
        |(method, why): &(ReadMethod, String)| json!({"engine": engine(*method), "direct": method.direct, "why": why});
    let memory = |rate: &Option<Rate>| rate.as_ref().map(figures);
    let device = roofline
        .device
        .as_ref()
        .ok()
        .map(|device| json!({"major": device.major, "minor": device.minor, "identity": device.identity}));
    let (path, store_error) = match stored {
        Stored::At(path) => (Some(path.to_string_lossy()), None),
        Stored::Refused(why) => (None, Some(why)),
        Stored::NotRequested => (None, None),
    };
    json!({
        "path": args.folder.to_string_lossy(),
        "file_system": roofline.file_system,
        "device": device,
        "read": roofline.origin,
        "seconds": roofline.elapsed.as_secs_f64(),
        "measured_at": roofline.measured_at,
        "cells": roofline.cells.iter().map(cell).collect::<Vec<_>>(),
        "best": ReadMethod::ALL.into_iter().filter_map(|method| roofline.best(method)).map(cell).collect::<Vec<_>>(),
        "refused": roofline.refused.iter().map(refused).collect::<Vec<_>>(),
        "spread": roofline.spread(),
        "memory": {
            "threads": roofline.cpus,
            "copy_to_huge_pages": memory(&roofline.copy),
            "fault_huge_pages": memory(&roofline.fault_huge),
            "fault_small_pages": memory(&roofline.fault_small),
        },
        "stored": path,
        "store_error": store_error,
        "notes": roofline.notes,
    })
}
