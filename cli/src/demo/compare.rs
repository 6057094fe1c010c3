//! Loads the demo's checkpoint in turn by each way there is, cold each time, and checks that all bring the same bytes.

use crate::output::Failure;
use floodtide_linux::{Backend, Loader, Tensors};
use safetensors::SafeTensors;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const ROUNDS: usize = 5;

/// A way to load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Auto,
    By(Backend),
    StdRead,
}

impl Way {
    pub(crate) const ALL: [Self; 6] = [
        Self::By(Backend::Uring),
        Self::By(Backend::Pread),
        Self::By(Backend::Mmap),
        Self::By(Backend::Tokio),
        Self::Auto,
        Self::StdRead,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::By(backend) => backend.name(),
            Self::StdRead => "std::fs::read",
        }
    }
}

/// How a way fared.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) way: Way,
    pub(crate) result: Result<Timing, String>,
}

#[derive(Debug, Default)]
pub(crate) struct Timing {
    times: Vec<Duration>,
    /// What was chosen and why, of the last round.
    pub(crate) backend: Option<Backend>,
    pub(crate) reason: String,
}

impl Timing {
    /// The median of all rounds.
    pub(crate) fn median(&self) -> Duration {
        let mut times = self.times.clone();
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or_default()
    }
}

/// What came of it all.
#[derive(Debug)]
pub(crate) struct Comparison {
    pub(crate) rows: Vec<Row>,
    /// The largest share of a file that was in the page cache when a load began; `None` where the system does not tell.
    pub(crate) cached: Option<f32>,
}

impl Comparison {
    /// How many ways loaded the checkpoint.
    fn ran(&self) -> usize {
        self.rows.iter().filter(|row| row.result.is_ok()).count()
    }

    /// Whether several ways brought the same bytes; that none brought others is checked with each load.
    pub(crate) fn agree(&self) -> bool {
        self.ran() > 1
    }

    /// Fails when no way ran, with what stopped the first.
    fn check(self) -> Result<Self, Failure> {
        match self.rows.iter().find_map(|row| Some((row.way, row.result.as_ref().err()?))) {
            Some((way, why)) if self.ran() == 0 => {
                Err(Failure::Failed(format!("no way could load the demo's checkpoint; {}: {why}", way.name())))
            }
            _ => Ok(self),
        }
    }
}

/// A load's bytes, checked against the first load's.
struct Checksums(BTreeMap<String, u64>);

pub(crate) fn compare(folder: &Path) -> Result<Comparison, Failure> {
    let mut rows: Vec<Row> = Way::ALL.iter().map(|&way| Row { way, result: Ok(Timing::default()) }).collect();
    let (mut expected, mut cached) = (None, Some(0.0_f32));
    let mut order: Vec<usize> = (0..rows.len()).collect();
    for _ in 0..ROUNDS {
        // What a load leaves behind (free memory in small pages, a busy disk) slows the next one, so nobody keeps a neighbour.
        fastrand::shuffle(&mut order);
        for &at in &order {
            let row = &mut rows[at];
            let Ok(timing) = &mut row.result else { continue };
            let left = drop_cache(folder)?;
            cached = cached.zip(left).map(|(most, left)| most.max(left));
            match load(row.way, folder, timing) {
                Ok(Checksums(found)) => {
                    let expected = expected.get_or_insert_with(|| found.clone());
                    let names = || expected.keys().chain(found.keys());
                    if let Some(name) = names().find(|name| expected.get(*name) != found.get(*name)) {
                        let way = row.way.name();
                        return Err(Failure::Failed(format!(
                            "tensor \"{name}\" loaded by {way} differs; please report this"
                        )));
                    }
                }
                Err(why) => row.result = Err(why),
            }
        }
    }
    Comparison { rows, cached }.check()
}

fn load(way: Way, folder: &Path, timing: &mut Timing) -> Result<Checksums, String> {
    let loader = match way {
        Way::StdRead => return std_read(folder, timing).map_err(|error| error.to_string()),
        Way::Auto => Loader::new(),
        Way::By(backend) => Loader::new().backend(backend),
    };
    let start = Instant::now();
    let tensors: Tensors = loader.load(folder).map_err(|error| error.to_string())?;
    timing.times.push(start.elapsed());
    timing.backend = Some(tensors.report().backend);
    timing.reason.clone_from(&tensors.report().reason);
    Ok(Checksums(tensors.iter().map(|tensor| (tensor.name().to_owned(), checksum(tensor.bytes()))).collect()))
}

/// What one would write without a loader: each shard read as a whole. The reference library parses what it brings.
fn std_read(folder: &Path, timing: &mut Timing) -> Result<Checksums, Box<dyn std::error::Error>> {
    let start = Instant::now();
    let files = shards(folder)?.iter().map(fs::read).collect::<Result<Vec<_>, _>>()?;
    timing.times.push(start.elapsed());
    let mut checksums = BTreeMap::new();
    for file in &files {
        let tensors = SafeTensors::deserialize(file)?;
        checksums.extend(tensors.iter().map(|(name, view)| (name.to_owned(), checksum(view.data()))));
    }
    Ok(Checksums(checksums))
}

/// FNV-1a over words: enough to tell loads apart, at the speed of memory.
fn checksum(bytes: &[u8]) -> u64 {
    let mix = |hash: u64, word: u64| (hash ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
    let (words, rest) = bytes.as_chunks::<8>();
    let hash = words.iter().fold(0xcbf2_9ce4_8422_2325, |hash, word| mix(hash, u64::from_le_bytes(*word)));
    rest.iter().fold(mix(hash, bytes.len() as u64), |hash, &byte| mix(hash, byte.into()))
}

fn shards(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    Ok(entries
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "safetensors"))
        .collect())
}

/// Drops the files' pages from the page cache, which needs no privilege: they are clean, as the writer synced them. Returns
/// the largest share of a file that is there all the same: a file system in memory has nowhere to drop them to.
fn drop_cache(folder: &Path) -> Result<Option<f32>, Failure> {
    let failed =
        |error: std::io::Error| Failure::Failed(format!("{}: cannot drop the page cache: {error}", folder.display()));
    let mut most = Some(0.0_f32);
    for path in shards(folder).map_err(failed)? {
        let file = fs::File::open(&path).map_err(failed)?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).map_err(|error| failed(error.into()))?;
        most = most.zip(floodtide_linux::probe::resident_share(&file)).map(|(most, left)| most.max(left));
    }
    Ok(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_sees_one_bit_and_a_length() {
        let bytes = vec![3_u8; 1001];
        for at in [0, 500, 1000] {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert_ne!(checksum(&bytes), checksum(&other));
        }
        assert_ne!(checksum(&bytes), checksum(&bytes[..1000]));
    }

    #[test]
    fn ways_agree_only_if_several_ran_and_none_is_a_failure() {
        let comparison = |ran: [bool; 3]| {
            let row = |(way, ran): (&Way, bool)| {
                let result = if ran { Ok(Timing::default()) } else { Err(format!("no {}", way.name())) };
                Row { way: *way, result }
            };
            Comparison { rows: Way::ALL.iter().zip(ran).map(row).collect(), cached: None }.check()
        };
        assert!(comparison([true, false, true]).expect("two ran").agree());
        assert!(!comparison([false, false, true]).expect("one ran").agree());
        let failure = comparison([false; 3]).expect_err("none ran");
        assert!(matches!(failure, Failure::Failed(why) if why.contains("uring: no uring")));
    }

    #[test]
    fn the_median_is_the_middle() {
        let times = [5, 1, 3].map(Duration::from_secs).to_vec();
        assert_eq!(Timing { times, ..Timing::default() }.median(), Duration::from_secs(3));
    }
}
