//! The samples of a run, as stored in the target folder and turned into tables and figures.

use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Results {
    pub(super) machine: String,
    pub(super) rounds: usize,
    pub(super) quick: bool,
    pub(super) reclaims_memory: bool,
    /// The compared programs: a name and its version.
    pub(super) versions: Vec<(String, String)>,
    pub(super) tables: Vec<Table>,
    pub(super) figures: Figures,
    /// What was skipped, and why.
    pub(super) left_out: Vec<String>,
    /// The titles of tables that were measured in a later run.
    #[serde(default)]
    pub(super) again: Vec<String>,
}

/// The loads that were timed in the same rounds.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Table {
    /// Identifies the table for targets and figures.
    pub(super) id: String,
    pub(super) title: String,
    pub(super) rows: Vec<Row>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) subject: String,
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) samples: Vec<Sample>,
    /// What the loader reports about itself.
    pub(super) note: Option<String>,
}

/// What a row stands for in a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Role {
    /// floodtide with its own choice of backend.
    Auto,
    /// floodtide with a fixed backend and owned tensors.
    Fixed,
    /// floodtide in another use.
    Other,
    /// A peer whose tensors are owned.
    BaselineOwned,
    /// A peer whose tensors are views of mapped files.
    BaselineMapped,
    /// Reads without a loader.
    Plain,
    /// The fastest reads of the device.
    Roofline,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Sample {
    pub(super) bytes: u64,
    pub(super) seconds: f64,
    /// `None` for fio.
    pub(super) cpu_seconds: Option<f64>,
    /// The peak of the process minus what it had before the load.
    pub(super) memory_bytes: Option<u64>,
    pub(super) copied_bytes: Option<u64>,
}

/// Single figures.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Figures {
    /// A small checkpoint: seconds of a load, and of `std::fs::read`.
    pub(super) small: Option<(f64, f64)>,
    /// Open and plan: seconds, and the number of tensors.
    pub(super) plan: Option<(f64, u64)>,
    pub(super) seconds_per_tensor: Option<f64>,
}

impl Sample {
    pub(super) fn gib_per_second(&self) -> f64 {
        self.bytes as f64 / f64::from(1 << 30) / self.seconds
    }
}

impl Row {
    /// Returns least, median and most, in GiB/s.
    pub(super) fn rates(&self) -> [f64; 3] {
        spread(self.samples.iter().map(Sample::gib_per_second))
    }

    pub(super) fn rate(&self) -> f64 {
        self.rates()[1]
    }

    pub(super) fn seconds(&self) -> [f64; 3] {
        spread(self.samples.iter().map(|sample| sample.seconds))
    }

    pub(super) fn cpu_seconds_per_gib(&self) -> Option<f64> {
        let of = |sample: &Sample| Some(sample.cpu_seconds? / (sample.bytes as f64 / f64::from(1 << 30)));
        self.samples.iter().map(of).collect::<Option<Vec<_>>>().map(|values| spread(values)[1])
    }

    pub(super) fn memory_bytes(&self) -> Option<u64> {
        self.samples.iter().filter_map(|sample| sample.memory_bytes).max()
    }
}

impl Table {
    pub(super) fn row(&self, subject: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.subject == subject)
    }

    pub(super) fn rate(&self, subject: &str) -> Option<f64> {
        self.row(subject).map(Row::rate)
    }

    /// Returns the row with the best median among these roles.
    pub(super) fn best(&self, roles: &[Role]) -> Option<&Row> {
        let rows = self.rows.iter().filter(|row| roles.contains(&row.role));
        rows.max_by(|a, b| a.rate().total_cmp(&b.rate()))
    }
}

impl Results {
    pub(super) fn table(&self, id: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.id == id)
    }
}

/// Returns least, median and most. The median of an even number of values is the upper of the two
/// in the middle.
pub(super) fn spread(values: impl IntoIterator<Item = f64>) -> [f64; 3] {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let at = |i: usize| values.get(i).copied().unwrap_or(f64::NAN);
    [at(0), at(values.len() / 2), at(values.len().saturating_sub(1))]
}
