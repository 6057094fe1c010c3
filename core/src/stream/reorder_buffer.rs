//! The filled buffers that are not yet delivered.

use crate::plan::Order;
use crate::seeded_bug::seeded_bug;
use crate::units::ExtentId;
use alloc::collections::{BTreeMap, VecDeque};

/// Holds filled buffers until their turn. Extents are numbered in the order of the plan.
#[derive(Debug)]
pub struct ReorderBuffer<B> {
    /// The buffers that can be delivered.
    ready: VecDeque<(ExtentId, B)>,
    /// The buffers that are ahead of their turn. Empty in the order of completion.
    early: BTreeMap<ExtentId, B>,
    in_order: bool,
    /// The number of extents that have had their turn.
    released: u32,
    total: usize,
}

impl<B> ReorderBuffer<B> {
    /// Creates the state for `extents` extents.
    #[must_use]
    pub fn new(order: Order, extents: usize) -> Self {
        let in_order = order != Order::Completion && !seeded_bug!(OrderIgnored);
        Self { ready: VecDeque::new(), early: BTreeMap::new(), in_order, released: 0, total: extents }
    }

    /// Adds a filled buffer. Returns true if more can be [taken](Self::take) than before.
    pub fn insert(&mut self, extent: ExtentId, buffer: B) -> bool {
        let before = self.released;
        if self.in_order {
            self.early.insert(extent, buffer);
            while let Some(buffer) = self.early.remove(&ExtentId(self.released)) {
                self.ready.push_back((ExtentId(self.released), buffer));
                self.released += 1;
            }
        } else {
            self.ready.push_back((extent, buffer));
            self.released += 1;
        }
        self.released > before
    }

    /// Returns the next buffer to deliver.
    pub fn take(&mut self) -> Option<(ExtentId, B)> {
        self.ready.pop_front()
    }

    /// Returns true if there is a buffer to [take](Self::take).
    #[must_use]
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Returns true if every extent has been taken.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.ready.is_empty() && self.released as usize == self.total
    }

    /// Removes all buffers, to be dropped.
    pub fn take_all(&mut self) -> impl Sized + use<B> {
        (core::mem::take(&mut self.ready), core::mem::take(&mut self.early))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn deliver(order: Order) -> Vec<u32> {
        let mut reorder = ReorderBuffer::new(order, 4);
        let mut taken = Vec::new();
        for extent in [2, 0, 3, 1] {
            let fresh = reorder.insert(ExtentId(extent), extent * 10);
            let before = taken.len();
            assert!(!reorder.is_done());
            assert_eq!(reorder.has_ready(), fresh);
            while let Some((ExtentId(extent), buffer)) = reorder.take() {
                assert_eq!(buffer, extent * 10);
                taken.push(extent);
            }
            assert_eq!(fresh, taken.len() > before);
        }
        assert!(reorder.is_done() && !reorder.has_ready());
        taken
    }

    #[test]
    fn each_order_is_kept() {
        assert_eq!(deliver(Order::Completion), [2, 0, 3, 1]);
        assert_eq!(deliver(Order::File), [0, 1, 2, 3]);
        assert_eq!(deliver(Order::Selection), [0, 1, 2, 3]);
    }
}
