//! The events of a load, written in the JSON object format of the Trace Event Format, which
//! Perfetto and chrome://tracing read.
//! <https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU>

use super::Phase;
use floodtide_core::{Outcome, ReadOp};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{self, Write};

/// The first bytes of a trace of floodtide.
pub(super) const SIGNATURE: &str = r#"{"displayTimeUnit":"ms","otherData":{"writer":"floodtide"#;

/// The track of the phases of a load.
pub(super) const PHASES: u32 = 1;

/// Nanoseconds since the trace started.
pub(super) type Nanos = u64;

/// An event. It is compact, because a load has hundreds of thousands of reads.
#[derive(Debug)]
pub(super) struct Event {
    /// The number of the load.
    pub(super) load: u32,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    Begun,
    /// The names of the files, without their common folder, and the decisions.
    Decided {
        at: Nanos,
        files: Vec<String>,
        about: Value,
    },
    Track {
        track: u32,
        name: String,
        order: u64,
    },
    Phase {
        phase: Phase,
        began: Nanos,
        ended: Nanos,
    },
    Read(Read),
    Rejected {
        at: Nanos,
        track: u32,
        op: ReadOp,
        why: &'static str,
    },
    Populated {
        track: u32,
        file: usize,
        offset: u64,
        bytes: u64,
        began: Nanos,
        ended: Nanos,
        done: bool,
    },
    Counters {
        at: Nanos,
        bytes: u64,
        in_flight: u64,
    },
    /// The target of reads in flight, and the rate measured before.
    Tuned {
        at: Nanos,
        reads: u32,
        bytes_per_second: Option<u64>,
    },
    Fallback {
        at: Nanos,
        about: Value,
    },
    /// The load has ended.
    Over,
}

/// A completed read.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) op: ReadOp,
    pub(super) outcome: Outcome,
    pub(super) worker: u32,
    pub(super) track: u32,
    pub(super) handed: Nanos,
    pub(super) began: Nanos,
    pub(super) ended: Nanos,
}

/// Writes events, one per line.
pub(super) struct Writer<W> {
    out: W,
    /// The names of the files as JSON, by load.
    files: HashMap<u32, Vec<String>>,
    first: bool,
}

impl<W: Write> Writer<W> {
    pub(super) fn begin(mut out: W) -> io::Result<Self> {
        write!(out, "{SIGNATURE} {}\"}},\"traceEvents\":[", env!("CARGO_PKG_VERSION"))?;
        Ok(Self { out, files: HashMap::new(), first: true })
    }

    pub(super) fn end(&mut self) -> io::Result<()> {
        self.out.write_all(b"\n]}\n")?;
        self.out.flush()
    }

    pub(super) fn write(&mut self, Event { load, what }: Event) -> io::Result<()> {
        match what {
            What::Begun => {
                let number = if load == 1 { String::new() } else { format!(" {load}") };
                self.metadata(load, 0, "process_name", &json!({"name": format!("floodtide load{number}")}))?;
                self.track(load, PHASES, "phases", 0)
            }
            What::Decided { at, files, about } => {
                let names = files.iter().map(|name| Value::from(name.as_str()).to_string()).collect();
                self.files.insert(load, names);
                self.open(load, "decided", "load", "i", PHASES, at)?;
                write!(self.out, r#","s":"p","args":{about}}}"#)
            }
            What::Track { track, name, order } => self.track(load, track, &name, order),
            What::Phase { phase, began, ended } => {
                self.span(load, phase.name(), "phase", PHASES, began, ended)?;
                self.out.write_all(b"}")
            }
            What::Read(read) => self.read(load, &read),
            What::Rejected { at, track, op, why } => {
                self.open(load, "rejected", "read", "i", track, at)?;
                let ReadOp { offset, len, attempt, .. } = op;
                write!(self.out, r#","s":"t","args":{{"file":{},"#, self.file(load, op.file.index()))?;
                write!(self.out, r#""offset":{offset},"bytes":{len},"attempt":{attempt},"fault":"{why}"}}}}"#)
            }
            What::Populated { track, file, offset, bytes, began, ended, done } => {
                self.span(load, "populate", "read", track, began, ended)?;
                let outcome = if done { "resident" } else { "failed" };
                write!(self.out, r#","args":{{"file":{},"offset":{offset},"#, self.file(load, file))?;
                write!(self.out, r#""bytes":{bytes},"outcome":"{outcome}"}}}}"#)
            }
            What::Counters { at, bytes, in_flight } => {
                self.open(load, "bytes loaded", "load", "C", 0, at)?;
                write!(self.out, r#","args":{{"bytes":{bytes}}}}}"#)?;
                self.open(load, "reads in flight", "load", "C", 0, at)?;
                write!(self.out, r#","args":{{"reads":{in_flight}}}}}"#)
            }
            What::Tuned { at, reads, bytes_per_second } => {
                self.open(load, "target reads in flight", "load", "C", 0, at)?;
                write!(self.out, r#","args":{{"reads":{reads}}}}}"#)?;
                if let Some(rate) = bytes_per_second {
                    self.open(load, "bytes per second, measured", "load", "C", 0, at)?;
                    write!(self.out, r#","args":{{"bytes":{rate}}}}}"#)?;
                }
                Ok(())
            }
            What::Fallback { at, about } => {
                self.open(load, "direct I/O fallback", "load", "i", PHASES, at)?;
                write!(self.out, r#","s":"p","args":{about}}}"#)
            }
            What::Over => {
                self.files.remove(&load);
                Ok(())
            }
        }
    }

    fn read(&mut self, load: u32, read: &Read) -> io::Result<()> {
        let Read { op, outcome, worker, track, handed, began, ended } = read;
        let (outcome, got) = match outcome {
            Outcome::Read(0) => ("end of file".to_owned(), 0),
            Outcome::Read(bytes) => ("read".to_owned(), *bytes),
            Outcome::Failed(fault) => (format!("failed: {fault}"), 0),
        };
        self.span(load, "read", "read", *track, *handed, *ended)?;
        write!(self.out, r#","args":{{"file":{},"offset":{},"#, self.file(load, op.file.index()), op.offset)?;
        write!(
            self.out,
            r#""bytes":{},"got":{got},"direct":{},"attempt":{},"chunk":{},"#,
            op.len, op.direct, op.attempt, op.chunk.0
        )?;
        write!(self.out, r#""worker":{worker},"queue_us":{},"#, Micros(began - handed))?;
        write!(self.out, r#""service_us":{},"outcome":{}}}}}"#, Micros(ended - began), Value::from(outcome))?;
        if began > handed {
            self.span(load, "queue", "read", *track, *handed, *began)?;
            self.out.write_all(b"}")?;
        }
        Ok(())
    }

    /// Returns a file's name as JSON.
    fn file(&self, load: u32, file: usize) -> String {
        self.files.get(&load).and_then(|names| names.get(file)).map_or_else(|| format!("\"{file}\""), String::clone)
    }

    fn track(&mut self, load: u32, track: u32, name: &str, order: u64) -> io::Result<()> {
        self.metadata(load, track, "thread_name", &json!({"name": name}))?;
        self.metadata(load, track, "thread_sort_index", &json!({"sort_index": order}))
    }

    fn metadata(&mut self, load: u32, track: u32, name: &str, args: &Value) -> io::Result<()> {
        self.open(load, name, "__metadata", "M", track, 0)?;
        write!(self.out, r#","args":{args}}}"#)
    }

    fn span(
        &mut self,
        load: u32,
        name: &str,
        category: &str,
        track: u32,
        began: Nanos,
        ended: Nanos,
    ) -> io::Result<()> {
        self.open(load, name, category, "X", track, began)?;
        write!(self.out, r#","dur":{}"#, Micros(ended.saturating_sub(began)))
    }

    /// Writes an event up to its arguments. Names and categories are constants that need no
    /// escapes.
    fn open(&mut self, load: u32, name: &str, category: &str, kind: &str, track: u32, at: Nanos) -> io::Result<()> {
        let separator = if std::mem::take(&mut self.first) { "\n" } else { ",\n" };
        write!(
            self.out,
            r#"{separator}{{"name":"{name}","cat":"{category}","ph":"{kind}","pid":{load},"tid":{track},"ts":{}"#,
            Micros(at)
        )
    }
}

/// Formats nanoseconds as the microseconds of the format, without rounding.
struct Micros(Nanos);

impl std::fmt::Display for Micros {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_out_of_their_string() {
        let mut file = Vec::new();
        let mut writer = Writer::begin(&mut file).expect("writes");
        let files = vec!["a\"},{\"\n\u{1b}\\".to_owned()];
        let about = json!({"folder": "\u{0}\""});
        let event = |what| Event { load: 1, what };
        writer.write(event(What::Decided { at: 1, files: files.clone(), about: about.clone() })).expect("writes");
        let populated =
            What::Populated { track: 2, file: 0, offset: 8, bytes: 9, began: 1_000_001, ended: 1_002_000, done: true };
        writer.write(event(populated)).expect("writes");
        writer.end().expect("writes");
        let document: Value = serde_json::from_slice(&file).expect("JSON");
        let events = document["traceEvents"].as_array().expect("an array");
        assert_eq!(events[0]["args"], about);
        assert_eq!(events[1]["args"]["file"], files[0].as_str());
        assert_eq!((events[1]["ts"].as_f64(), events[1]["dur"].as_f64()), (Some(1000.001), Some(1.999)));
    }
}
