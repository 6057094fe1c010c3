//! Decides the route of one device: backend, read size, depth and workers.

use super::group::Group;
use super::{Backend, Consumer, Decision, MAX_IN_FLIGHT, MAX_THREADS, MAX_WORKERS, Route, files, is_small, profile};
use crate::backend::ReadStyle;
use crate::storage::LatencyClass;
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

impl Group<'_> {
    /// Returns the route, the decision for direct reads by file, and the reasons.
    pub(super) fn decide(mut self) -> (Route, Vec<bool>, Vec<Decision>) {
        let (signals, requested) = (self.signals, self.device.requested);
        if signals.populate_page_cache {
            self.refuse_direct("the files should stay in the page cache".to_owned());
        }
        profile::reconsider(&mut self);
        let mut decisions = Vec::new();
        let small = is_small(signals.selected_bytes, requested);
        let direct: Vec<bool> = self.files.iter().map(|file| !small && file.takes_direct_reads()).collect();
        let any_direct = direct.contains(&true);
        let backend = match requested {
            Some(backend) => {
                decisions.push(Decision::new("backend", format!("{backend} was requested")));
                backend
            }
            None => self.choose(small, any_direct, &mut decisions),
        };
        if backend.is_mapped() {
            let why = match self.device.signals.latency {
                LatencyClass::Memory => "the tensors are views of the bytes in memory",
                _ => "the files are mapped, so tensors share the page cache",
            };
            decisions.push(Decision::new("reads", why));
        } else if !small {
            decisions.push(Decision::new("reads", files::explain(&self, &direct)));
        }
        let floods = |direct: &[bool]| !signals.populate_page_cache && self.floods_the_cache(direct);
        let dont_cache = !backend.is_mapped() && !small && floods(&direct);
        if dont_cache {
            let why = "the page cache has no room for the files, so reads leave nothing in it";
            decisions.push(Decision::new("page cache", why));
        }
        let mut route = self.size(backend, small, any_direct);
        route.dont_cache = dont_cache;
        profile::adjust(&mut route, &self, &direct, &mut decisions);
        if requested.is_some_and(|backend| backend.style() == ReadStyle::Queue) {
            // A requested ring keeps its direct reads.
            route.profiled_direct_rate = None;
        }
        if route.profiled_direct_rate.is_some() {
            // The fallback from direct reads is buffered.
            route.dont_cache |= floods(&vec![false; self.files.len()]);
        }
        (route, direct, decisions)
    }

    fn choose(&self, small: bool, any_direct: bool, decisions: &mut Vec<Decision>) -> Backend {
        let refusal = |backend: Backend| self.device.signals.refused.iter().find(|(refused, _)| *refused == backend);
        let of_style = |style: ReadStyle| self.device.backends.iter().copied().find(|b| b.style() == style);
        let queue = of_style(ReadStyle::Queue);
        let Some(blocking) = of_style(ReadStyle::Blocking).or(queue) else {
            // The storage has no other style.
            return *self.device.backends.first().expect("a storage has a backend");
        };
        let in_memory = self.device.signals.latency == LatencyClass::Memory;
        let why = if small {
            let thread = match self.signals.consumer {
                Consumer::Whole => "the calling thread",
                Consumer::Stream => "one thread",
            };
            let through = if in_memory { "" } else { " through the page cache" };
            format!("the load is small, so {thread} reads it{through}")
        } else if in_memory {
            "processors copy the bytes, so threads share them".to_owned()
        } else if !any_direct {
            "buffered reads are copies by processors, so threads share them".to_owned()
        } else {
            match queue.map(|queue| (queue, refusal(queue))) {
                Some((queue, None)) => {
                    let why = "a ring keeps direct reads in flight from few threads";
                    decisions.push(Decision::new("backend", why));
                    return queue;
                }
                Some((queue, Some((_, why)))) => {
                    format!("{queue} is unavailable ({why}), so threads make the direct reads")
                }
                None => "threads make the direct reads".to_owned(),
            }
        };
        decisions.push(Decision::new("backend", why));
        blocking
    }

    /// Chooses the read size and the number of reads in flight.
    fn size(&self, backend: Backend, small: bool, any_direct: bool) -> Route {
        let cpus = self.signals.cpus.clamp(1, MAX_WORKERS);
        let network = self.device.signals.latency == LatencyClass::Network;
        let waits = any_direct || network || self.files.iter().any(|file| !file.is_cached());
        let style = backend.style();
        let (chunk_bytes, depth, workers) = match style {
            ReadStyle::Queue => (2 << 20, 4, cpus),
            _ if small => (4 << 20, 1, usize::from(self.signals.consumer == Consumer::Stream)),
            // A network file system has a high latency and serves requests in parallel.
            _ if network => (4 << 20, 1, 16),
            // A thread blocks during its direct read. Two per processor keep the device busy.
            _ if any_direct => (2 << 20, 1, 2 * cpus),
            _ => (2 << 20, 1, cpus),
        };
        // One worker hands out all reads of a runtime.
        let (depth, workers) =
            if style == ReadStyle::Tasks { (depth * workers.max(1), workers.min(1)) } else { (depth, workers) };
        let max_in_flight = match style {
            ReadStyle::Queue if waits => MAX_IN_FLIGHT,
            // Each worker is a thread. Copies from the page cache use a processor each, so more
            // threads do not help.
            ReadStyle::Blocking if waits && !small => MAX_THREADS,
            _ => workers * depth,
        };
        Route { backend, chunk_bytes, depth, max_in_flight, profiled_direct_rate: None, dont_cache: false, workers }
    }

    /// Returns true if the buffered bytes exceed the free memory beside the tensors.
    ///
    /// They would evict the files of other programs and finally each other.
    fn floods_the_cache(&self, direct: &[bool]) -> bool {
        if self.device.signals.latency == LatencyClass::Memory {
            return false;
        }
        let through = self.files.iter().zip(direct).filter(|(file, direct)| !**direct && !file.is_cached());
        let through = through.fold(0_u64, |sum, (file, _)| sum.saturating_add(file.selected_bytes));
        let tensors = if self.signals.consumer == Consumer::Whole { self.signals.selected_bytes } else { 0 };
        through > self.signals.memory.saturating_sub(tensors)
    }
}
