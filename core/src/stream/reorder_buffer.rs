//! The buffers that are whole and not yet delivered.

use crate::plan::Order;
use crate::seeded_bug::seeded_bug;
use crate::units::ExtentId;
use alloc::collections::{BTreeMap, VecDeque};

/// Holds whole buffers back until it is their turn. Extents are numbered in the order of the plan.
#[derive(Debug)]
pub struct ReorderBuffer<B> {
    /// Those whose turn it is.
    ready: VecDeque<(ExtentId, B)>,
    /// In an order other than that of arrival: those that came before their turn.
    early: BTreeMap<ExtentId, B>,
    in_order: bool,
    /// How many extents have had their turn.
    released: usize,
    total: usize,
}

impl<B> ReorderBuffer<B> {
    /// For so many extents.
    #[must_use]
    pub fn new(order: Order, extents: usize) -> Self {
        let in_order = order != Order::Completion && !seeded_bug!(OrderIgnored);
        Self { ready: VecDeque::new(), early: BTreeMap::new(), in_order, released: 0, total: extents }
    }

    /// Takes a whole buffer in; true when there is something to [take](Self::take) now that was not before.
    pub fn land(&mut self, extent: ExtentId, buffer: B) -> bool {
        let before = self.released;
        if self.in_order {
            self.early.insert(extent, buffer);
            while let Some(buffer) = self.early.remove(&ExtentId(self.released as u32)) {
                self.ready.push_back((ExtentId(self.released as u32), buffer));
                self.released += 1;
            }
        } else {
            self.ready.push_back((extent, buffer));
            self.released += 1;
        }
        self.released > before
    }

    /// The next buffer to deliver.
    pub fn take(&mut self) -> Option<(ExtentId, B)> {
        self.ready.pop_front()
    }

    /// Whether there is something to [take](Self::take).
    #[must_use]
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether every extent has been taken.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.ready.is_empty() && self.released == self.total
    }

    /// Takes out what nobody will take any more, to be dropped.
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
            let fresh = reorder.land(ExtentId(extent), extent * 10);
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
