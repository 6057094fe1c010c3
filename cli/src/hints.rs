//! Hints about the command's own flags and subcommands. The library's messages name neither.

use crate::args::Args;
use clap::CommandFactory;
use floodtide::convert::WriteError;
use floodtide::convert::{ConvertError, OutputError};
use floodtide::core::manifest::ManifestError;
use floodtide::core::{Error as CoreError, Warning as CoreWarning};
use floodtide::doctor::Finding;
use floodtide::{Error, ErrorKind, Warning};

/// A flag and what it does about a failure; without a flag, a command that helps.
type Remedy = (Option<&'static str>, &'static str);

const SELECT: Remedy = (Some("select"), "--select GLOB selects fewer tensors");
const STREAM: Remedy = (Some("stream"), "--stream passes the tensors through a few buffers");
const MEMORY_LIMIT: Remedy = (Some("memory-limit"), "--memory-limit SIZE sets the limit for all buffers");
const BACKEND: Remedy = (Some("backend"), "--backend auto chooses one that is available");
const NAMES: Remedy = (None, "`floodtide inspect` lists the names of the tensors");
const MANIFEST: Remedy = (None, "`floodtide manifest` writes a manifest");

/// Returns the hint that follows the message of `error` when `command` fails with it.
pub(crate) fn of_error(command: &str, error: &Error) -> Option<String> {
    let args = Args::command();
    let command = args.find_subcommand(command)?;
    let has = |flag: &str| command.get_arguments().any(|argument| argument.get_long() == Some(flag));
    let remedies = remedies(error).iter().filter(|(flag, _)| flag.is_none_or(&has));
    let texts: Vec<&str> = remedies.map(|(_, text)| *text).collect();
    (!texts.is_empty()).then(|| texts.join("; "))
}

fn remedies(error: &Error) -> &'static [Remedy] {
    match error {
        Error::Core(error) => match error {
            CoreError::NoSuchTensor { .. }
            | CoreError::NothingSelected { .. }
            | CoreError::UnmatchedShardRule { .. }
            | CoreError::Convert(ConvertError::RenameUnused { .. }) => &[NAMES],
            CoreError::NotInManifest { .. } | CoreError::ManifestDiffers { .. } => {
                &[(None, "`floodtide verify --manifest` lists every difference")]
            }
            CoreError::Manifest { source: ManifestError::Json { .. } | ManifestError::NotPlainName { .. }, .. } => {
                &[MANIFEST]
            }
            CoreError::Convert(ConvertError::Inexpressible { .. }) => &[SELECT],
            CoreError::Convert(ConvertError::ReservedName { .. } | ConvertError::SameName { .. }) => {
                &[(Some("rename"), "--rename FROM=TO gives tensors other names")]
            }
            CoreError::Convert(ConvertError::File { source: WriteError::HeaderTooLarge { .. }, .. }) => {
                &[SELECT, (Some("shard-size"), "--shard-size SIZE writes more files")]
            }
            CoreError::BackendUnavailable { .. } => &[BACKEND],
            CoreError::BufferTooSmall { .. } | CoreError::TooManyBuffers { .. } => &[MEMORY_LIMIT],
            error if error.kind() == ErrorKind::OutOfMemory => &[SELECT, STREAM, MEMORY_LIMIT],
            _ => &[],
        },
        Error::Output(OutputError::Exists { .. }) => &[(Some("force"), "--force replaces a checkpoint")],
        Error::Output(OutputError::NoRoom { .. }) => &[SELECT],
        Error::StreamMapped { .. } => &[BACKEND],
        error if error.kind() == ErrorKind::OutOfMemory => &[SELECT, STREAM, MEMORY_LIMIT],
        Error::StreamLimit { .. } | Error::StreamBuffer { .. } | Error::StreamStalled { .. } => &[MEMORY_LIMIT],
        _ => &[],
    }
}

/// Returns the hint that follows a warning, if the command has a flag for it.
pub(crate) fn of_warning(warning: &Warning) -> Option<&'static str> {
    match warning {
        Warning::Core(CoreWarning::NothingSharded { .. }) => {
            Some("--partition-rule GLOB=DIM partitions matching tensors; --partition rows partitions every tensor")
        }
        Warning::Core(CoreWarning::ProfileIgnored { .. }) => {
            Some("`floodtide probe --store` measures the device again")
        }
        _ => None,
    }
}

/// Returns the remedy of a finding, with the command's own flags.
pub(crate) fn remedy(finding: &Finding) -> Option<String> {
    let remedy = finding.remedy.as_ref()?;
    Some(match finding.name {
        "memory" => format!("{remedy} (floodtide load --stream, or --select GLOB)"),
        "device profile" => format!("{remedy} (floodtide probe --store DIR)"),
        _ => remedy.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_names_only_flags_that_the_command_has() {
        let limit = "1 GiB".to_owned();
        let full = || {
            Error::Core(CoreError::NotEnoughMemory {
                file: String::new(),
                needed: 2,
                available: 1,
                limit: limit.clone(),
            })
        };
        let load = of_error("load", &full()).expect("a hint");
        assert!(["--select", "--stream", "--memory-limit"].iter().all(|flag| load.contains(flag)), "{load}");
        let plan = of_error("plan", &full()).expect("a hint");
        assert!(plan.contains("--select") && !plan.contains("--stream") && !plan.contains("--memory-limit"), "{plan}");
        assert_eq!(of_error("inspect", &full()), None);
        assert_eq!(of_error("load", &Error::StreamStarted), None);
    }

    #[test]
    fn a_warning_has_the_hint_of_its_kind() {
        let sharded = CoreWarning::NothingSharded { rank: 0, world: 2, tensors: 1, first: String::new() };
        assert!(of_warning(&sharded.into()).is_some_and(|hint| hint.contains("--partition-rule")));
        let ignored = CoreWarning::ProfileIgnored { path: String::new(), why: String::new() };
        assert!(of_warning(&ignored.into()).is_some_and(|hint| hint.contains("probe --store")));
        // The words of a hint's warning, in another.
        let words = "divides nothing, the profile is ignored".to_owned();
        assert_eq!(of_warning(&Warning::NotLocked { why: words }), None);
    }

    #[test]
    fn every_flag_in_a_hint_is_a_flag_of_a_command() {
        let args = Args::command();
        let errors = [
            Error::Output(OutputError::Exists { path: "out".into() }),
            Error::Output(OutputError::NoRoom { path: "out".into(), needed: 2, available: 1 }),
            Error::StreamLimit { limit: 1, min: 2 },
            Error::StreamMapped { backend: floodtide::backend::MMAP },
            Error::Core(CoreError::Convert(ConvertError::File {
                file: String::new(),
                source: WriteError::HeaderTooLarge { needed: 1, limit: 1 },
            })),
        ];
        for (flag, text) in errors.iter().flat_map(remedies) {
            let flag = flag.expect("a flag");
            assert!(text.starts_with(&format!("--{flag} ")), "{text}");
            let has =
                |command: &clap::Command| command.get_arguments().any(|argument| argument.get_long() == Some(flag));
            assert!(args.get_subcommands().any(has), "no command has --{flag}");
        }
    }
}
