//! Containers for a pool's blocks and waiters: growing, or of a fixed capacity for targets without
//! allocation.

use super::class::{COUNT, SizeClass};
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Free blocks by class. The last block in is the first out.
pub trait FreeList<T>: Default {
    /// Adds a block to its class.
    ///
    /// # Errors
    /// Returns the block if the list is full.
    fn put(&mut self, class: SizeClass, block: T) -> Result<(), T>;
    /// Takes the last block of the class if it `fits`.
    fn take(&mut self, class: SizeClass, fits: impl FnMut(&T) -> bool) -> Option<T>;
    /// Takes a block of the largest non-empty class.
    fn take_largest(&mut self) -> Option<T>;
}

/// A queue with a possible limit, whose elements can be removed from anywhere.
pub trait Queue<T>: Default {
    /// Appends `value`.
    ///
    /// # Errors
    /// Returns the value if the queue is full.
    fn push_back(&mut self, value: T) -> Result<(), T>;
    /// Returns the first value.
    fn front(&self) -> Option<&T>;
    /// Returns the first value that `is_it` accepts.
    fn find(&mut self, is_it: impl FnMut(&T) -> bool) -> Option<&mut T>;
    /// Removes the first value that `is_it` accepts.
    fn remove(&mut self, is_it: impl FnMut(&T) -> bool) -> Option<T>;
}

/// The containers of a pool.
pub trait Containers {
    /// The container of free blocks.
    type FreeList<T>: FreeList<T>;
    /// The queue of waiting borrowers.
    type Queue<T>: Queue<T>;
}

/// Containers of `alloc`, which grow as needed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Growing;

impl Containers for Growing {
    type FreeList<T> = Stacks<T>;
    type Queue<T> = VecDeque<T>;
}

/// Containers of capacity `N`, which never allocate. A block that does not fit goes back to its
/// provider.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fixed<const N: usize>;

impl<const N: usize> Containers for Fixed<N> {
    type FreeList<T> = Slots<T, N>;
    type Queue<T> = heapless::Deque<T, N>;
}

/// One stack per class.
#[derive(Debug)]
pub struct Stacks<T>([Vec<T>; COUNT]);

impl<T> Default for Stacks<T> {
    fn default() -> Self {
        Self([const { Vec::new() }; COUNT])
    }
}

impl<T> FreeList<T> for Stacks<T> {
    fn put(&mut self, class: SizeClass, block: T) -> Result<(), T> {
        self.0[class.index()].push(block);
        Ok(())
    }

    fn take(&mut self, class: SizeClass, mut fits: impl FnMut(&T) -> bool) -> Option<T> {
        let stack = &mut self.0[class.index()];
        let found = stack.iter().rposition(&mut fits)?;
        Some(stack.remove(found))
    }

    fn take_largest(&mut self) -> Option<T> {
        self.0.iter_mut().rev().find_map(Vec::pop)
    }
}

/// One stack for all classes, which is searched.
#[derive(Debug)]
pub struct Slots<T, const N: usize>(heapless::Vec<(SizeClass, T), N>);

impl<T, const N: usize> Default for Slots<T, N> {
    fn default() -> Self {
        Self(heapless::Vec::new())
    }
}

impl<T, const N: usize> FreeList<T> for Slots<T, N> {
    fn put(&mut self, class: SizeClass, block: T) -> Result<(), T> {
        self.0.push((class, block)).map_err(|(_, block)| block)
    }

    fn take(&mut self, class: SizeClass, mut fits: impl FnMut(&T) -> bool) -> Option<T> {
        let found = self.0.iter().rposition(|(its, block)| *its == class && fits(block))?;
        Some(self.0.remove(found).1)
    }

    fn take_largest(&mut self) -> Option<T> {
        let largest = self.0.iter().map(|(class, _)| *class).max()?;
        self.take(largest, |_| true)
    }
}

impl<T> Queue<T> for VecDeque<T> {
    fn push_back(&mut self, value: T) -> Result<(), T> {
        self.push_back(value);
        Ok(())
    }
    fn front(&self) -> Option<&T> {
        self.front()
    }
    fn find(&mut self, mut is_it: impl FnMut(&T) -> bool) -> Option<&mut T> {
        self.iter_mut().find(|value| is_it(value))
    }
    fn remove(&mut self, is_it: impl FnMut(&T) -> bool) -> Option<T> {
        let at = self.iter().position(is_it)?;
        self.remove(at)
    }
}

impl<T, const N: usize> Queue<T> for heapless::Deque<T, N> {
    fn push_back(&mut self, value: T) -> Result<(), T> {
        self.push_back(value)
    }
    fn front(&self) -> Option<&T> {
        self.front()
    }
    fn find(&mut self, mut is_it: impl FnMut(&T) -> bool) -> Option<&mut T> {
        self.iter_mut().find(|value| is_it(value))
    }
    fn remove(&mut self, mut is_it: impl FnMut(&T) -> bool) -> Option<T> {
        let mut found = None;
        // One full rotation keeps the order of the remaining values.
        for _ in 0..self.iter().len() {
            let value = self.pop_front()?;
            if found.is_none() && is_it(&value) {
                found = Some(value);
            } else {
                // A place has just become free.
                let _ = self.push_back(value);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(bytes: usize) -> SizeClass {
        SizeClass::holding(bytes).expect("in range")
    }

    fn free_list_is_last_in_first_out_within_a_class<S: FreeList<u32>>() {
        let mut free_list = S::default();
        for (bytes, block) in [(1024, 1), (4096, 2), (1024, 3), (4096, 4)] {
            free_list.put(class(bytes), block).expect("room for four");
        }
        assert_eq!(free_list.take(class(1024), |_| true), Some(3));
        assert_eq!(free_list.take(class(4096), |block| *block == 2), Some(2), "the first that fits");
        assert_eq!(free_list.take(class(2048), |_| true), None);
        assert_eq!(
            [free_list.take_largest(), free_list.take_largest(), free_list.take_largest()],
            [Some(4), Some(1), None]
        );
    }

    fn queue_keeps_its_order<Q: Queue<u32>>() {
        let mut queue = Q::default();
        for value in 1..=4 {
            queue.push_back(value).expect("room for four");
        }
        assert_eq!([queue.remove(|value| *value == 3), queue.remove(|value| *value == 1)], [Some(3), Some(1)]);
        assert_eq!(queue.remove(|value| *value == 1), None);
        *queue.find(|value| *value == 4).expect("still there") = 5;
        assert_eq!(queue.front(), Some(&2));
        assert_eq!(queue.remove(|value| *value == 2), Some(2));
        assert_eq!(queue.front(), Some(&5));
    }

    #[test]
    fn both_kinds_keep_their_order() {
        free_list_is_last_in_first_out_within_a_class::<Stacks<u32>>();
        free_list_is_last_in_first_out_within_a_class::<Slots<u32, 4>>();
        queue_keeps_its_order::<VecDeque<u32>>();
        queue_keeps_its_order::<heapless::Deque<u32, 4>>();
    }

    #[test]
    fn what_is_full_gives_back() {
        let mut free_list = Slots::<u32, 1>::default();
        assert_eq!((free_list.put(class(1), 1), free_list.put(class(1), 2)), (Ok(()), Err(2)));
        let mut queue = heapless::Deque::<u32, 1>::new();
        assert_eq!((Queue::push_back(&mut queue, 1), Queue::push_back(&mut queue, 2)), (Ok(()), Err(2)));
    }
}
