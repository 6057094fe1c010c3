//! `floodtide doctor`: reports what the machine and a path support, what each limit costs, and how
//! to lift it.

use crate::args::DoctorArgs;
use crate::hints;
use crate::output::{self, Failure};
use floodtide::core::Escaped;
use floodtide::doctor::{Finding, Status};
use serde_json::{Value, json};
use std::io::{self, Write};

pub(crate) fn run(args: &DoctorArgs) -> Result<(), Failure> {
    let findings = floodtide::examine(&args.path)?;
    if args.json {
        return output::print_json(&document(args, &findings));
    }
    Ok(show(&mut output::stdout(), &findings)?)
}

fn count(findings: &[Finding], status: Status) -> usize {
    findings.iter().filter(|finding| finding.status == status).count()
}

fn show(out: &mut impl Write, findings: &[Finding]) -> io::Result<()> {
    let width = findings.iter().map(|finding| finding.name.len()).max().unwrap_or(0);
    for finding in findings {
        let Finding { name, status, found, meaning, .. } = finding;
        writeln!(out, "{status:7}  {name:width$}  {}", Escaped(found))?;
        let indent = " ".repeat(9 + width);
        writeln!(out, "{indent}  {}", Escaped(meaning))?;
        for (what, text) in [("costs", &finding.cost), ("remedy", &hints::remedy(finding))] {
            if let Some(text) = text {
                writeln!(out, "{indent}  {what}: {}", Escaped(text))?;
            }
        }
    }
    let [good, limited, missing] = [Status::Good, Status::Limited, Status::Missing].map(|s| count(findings, s));
    writeln!(out, "\n{good} good, {limited} limited, {missing} missing")?;
    out.flush()
}

fn document(args: &DoctorArgs, findings: &[Finding]) -> Value {
    let finding = |finding: &Finding| {
        json!({
            "check": finding.name,
            "status": finding.status.name(),
            "found": finding.found,
            "meaning": finding.meaning,
            "cost": finding.cost,
            "remedy": hints::remedy(finding),
        })
    };
    json!({
        "path": args.path.to_string_lossy(),
        "good": count(findings, Status::Good),
        "limited": count(findings, Status::Limited),
        "missing": count(findings, Status::Missing),
        "checks": findings.iter().map(finding).collect::<Vec<_>>(),
    })
}
