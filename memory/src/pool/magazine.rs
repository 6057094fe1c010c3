//! The upper tier: a cache of free blocks per thread, which its thread uses without a lock or an
//! atomic read-modify-write.
//!
//! A [`Magazine`] has two flags. Its thread raises `busy` and checks `suspended`. If that is down,
//! the thread owns the racks until it lowers `busy`. A thread that needs the blocks of other
//! magazines (because a borrower waits, or to trim) raises `suspended` in all of them, passes a
//! fence that reaches all threads, and waits until each `busy` is down. From then on their threads
//! stay out. The fence is the `sync` module's asymmetric one, which costs the frequent side
//! nothing.
//!
//! Code that reaches into several magazines holds the lock of their list.

use crate::sync::{AsymmetricFence, AtomicBool, AtomicUsize, Mutex, Ordering, UnsafeCell};
use floodtide_core::pool::{CLASS_COUNT, SizeClass, Tier};
use std::sync::Arc;

/// The maximum number of blocks of one class per thread.
const MAX_LEN: u8 = 16;
const DEPTH: usize = MAX_LEN as usize;

/// The free blocks of one class, the last one taken first. Places from `len` on are empty.
#[derive(Debug)]
struct Rack<B> {
    blocks: [Option<B>; DEPTH],
    len: u8,
    limit: u8,
}

/// The free blocks of one thread.
#[derive(Debug)]
pub struct Magazine<B> {
    /// The thread is using the racks.
    busy: AtomicBool,
    /// The thread must stay out.
    suspended: AtomicBool,
    fence: AsymmetricFence,
    /// The number of hits, and the bytes in the racks. Written only by the owner of the racks.
    hits: AtomicUsize,
    bytes: AtomicUsize,
    racks: UnsafeCell<Box<[Rack<B>]>>,
}

// SAFETY: the racks own their blocks, which are `Send`; the rest is atomic.
unsafe impl<B: Send> Send for Magazine<B> {}
// SAFETY: `busy` and `suspended` let one thread at a time reach the racks, which loom's models
// check. The blocks are `Send`, so any thread may take them.
unsafe impl<B: Send> Sync for Magazine<B> {}

impl<B> Magazine<B> {
    fn new(fence: AsymmetricFence, suspended: bool, limits: &[u8; CLASS_COUNT]) -> Self {
        let rack = |&limit: &u8| Rack { blocks: [const { None }; DEPTH], len: 0, limit };
        Self {
            busy: AtomicBool::new(false),
            suspended: AtomicBool::new(suspended),
            fence,
            hits: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            racks: UnsafeCell::new(limits.iter().map(rack).collect()),
        }
    }

    /// Calls `f` with the racks, or with `None` while they are suspended.
    ///
    /// # Safety
    /// Only the magazine's thread may call this, and not from within `f`.
    #[inline(always)]
    unsafe fn with<R>(&self, f: impl FnOnce(Option<&mut [Rack<B>]>) -> R) -> R {
        self.busy.store(true, Ordering::Relaxed);
        self.fence.light();
        // Acquire makes changes during the suspension visible.
        if self.suspended.load(Ordering::Acquire) {
            self.busy.store(false, Ordering::Release);
            return f(None);
        }
        // SAFETY: `busy` is up and `suspended` was down after the fence, so a suspending thread
        // waits for `busy`. This thread itself is here once.
        let result = self.racks.with_mut(|racks| f(Some(unsafe { &mut **racks })));
        self.busy.store(false, Ordering::Release);
        result
    }

    /// Takes the last block of the class.
    ///
    /// # Safety
    /// Only the magazine's thread may call this.
    #[inline(always)]
    pub unsafe fn pop(&self, class: SizeClass) -> Option<B> {
        let work = |racks: Option<&mut [Rack<B>]>| {
            let rack = &mut racks?[class.index()];
            let top = rack.len.wrapping_sub(1);
            let block = rack.blocks.get_mut(usize::from(top))?.take()?;
            rack.len = top;
            add(&self.bytes, class.size().wrapping_neg());
            add(&self.hits, 1);
            Some(block)
        };
        // SAFETY: only the magazine's thread calls this (contract of `pop`), and `work` does not
        // call `with`.
        unsafe { self.with(work) }
    }

    /// Keeps a block that has the size of its class.
    ///
    /// # Errors
    /// Returns the block if its rack is full or suspended.
    ///
    /// # Safety
    /// Only the magazine's thread may call this.
    #[inline(always)]
    pub unsafe fn push(&self, class: SizeClass, block: B) -> Result<(), B> {
        let work = |racks: Option<&mut [Rack<B>]>| {
            let Some(racks) = racks else { return Err(block) };
            let rack = &mut racks[class.index()];
            if rack.len >= rack.limit {
                return Err(block);
            }
            let Some(place) = rack.blocks.get_mut(usize::from(rack.len)) else { return Err(block) };
            // The place is empty. Forgetting it saves the check of a drop.
            std::mem::forget(place.replace(block));
            rack.len += 1;
            add(&self.bytes, class.size());
            Ok(())
        };
        // SAFETY: only the magazine's thread calls this (contract of `push`), and `work` does not
        // call `with`.
        unsafe { self.with(work) }
    }

    /// Takes the older half out of a full rack.
    ///
    /// # Safety
    /// Only the magazine's thread may call this.
    pub unsafe fn shed(&self, class: SizeClass) -> [Option<B>; DEPTH] {
        let work = |racks: Option<&mut [Rack<B>]>| {
            let mut older = [const { None }; DEPTH];
            let Some(racks) = racks else { return older };
            let rack = &mut racks[class.index()];
            let full = usize::from(rack.len);
            let half = full.div_ceil(2);
            older[..half].swap_with_slice(&mut rack.blocks[..half]);
            rack.blocks[..full].rotate_left(half);
            // The newer half, rounded down.
            rack.len /= 2;
            add(&self.bytes, (half * class.size()).wrapping_neg());
            older
        };
        // SAFETY: only the magazine's thread calls this (contract of `shed`), and `work` does not
        // call `with`.
        unsafe { self.with(work) }
    }

    /// Takes all blocks out.
    ///
    /// # Safety
    /// No thread may be using the racks: the magazine's own thread is not, or its `busy` was down
    /// after the fence, and no other thread is here.
    unsafe fn drain(&self, drained: &mut dyn FnMut(B)) {
        self.racks.with_mut(|racks| {
            // SAFETY: no other thread uses the racks (contract of `drain`), and `drained` takes
            // blocks, not the magazine.
            let racks = unsafe { &mut **racks };
            for rack in racks.iter_mut().filter(|rack| rack.len > 0) {
                rack.len = 0;
                rack.blocks.iter_mut().filter_map(Option::take).for_each(&mut *drained);
            }
        });
        self.bytes.store(0, Ordering::Relaxed);
    }
}

/// Adds to a counter that one thread at a time writes.
#[inline]
fn add(counter: &AtomicUsize, value: usize) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(value), Ordering::Relaxed);
}

#[derive(Debug)]
struct List<B> {
    magazines: Vec<Arc<Magazine<B>>>,
    /// Magazines of ended threads, so that short-lived threads do not allocate new ones.
    spare: Vec<Arc<Magazine<B>>>,
    suspended: bool,
    /// Suspended for good.
    closed: bool,
    /// The hits of retired magazines.
    past_hits: usize,
}

/// All magazines of a pool.
#[derive(Debug)]
pub struct Magazines<B> {
    fence: AsymmetricFence,
    limits: [u8; CLASS_COUNT],
    list: Mutex<List<B>>,
}

impl<B> Magazines<B> {
    /// Creates magazines that keep at most `limits` blocks per class, and at most 16.
    #[must_use]
    pub fn new(limits: [u8; CLASS_COUNT]) -> Self {
        let limits = limits.map(|limit| limit.min(MAX_LEN));
        let list = List { magazines: Vec::new(), spare: Vec::new(), suspended: false, closed: false, past_hits: 0 };
        Self { fence: AsymmetricFence::new(), limits, list: Mutex::new(list) }
    }

    /// Returns the maximum number of blocks of a class per magazine.
    pub fn depth(&self, class: SizeClass) -> usize {
        usize::from(self.limits[class.index()])
    }

    /// Creates a magazine for the calling thread.
    pub fn add(&self) -> Arc<Magazine<B>> {
        self.list.with(|list| {
            let new = || Arc::new(Magazine::new(self.fence, list.suspended, &self.limits));
            let magazine = list.spare.pop().unwrap_or_else(new);
            magazine.suspended.store(list.suspended, Ordering::Relaxed);
            list.magazines.push(Arc::clone(&magazine));
            magazine
        })
    }

    /// Removes a magazine from the list because its thread ends, and takes all blocks out.
    ///
    /// # Safety
    /// Only the magazine's thread may call this. It must not use the magazine afterwards.
    pub unsafe fn retire(&self, magazine: &Arc<Magazine<B>>, drained: &mut dyn FnMut(B)) {
        self.list.with(|list| {
            list.magazines.retain(|other| !Arc::ptr_eq(other, magazine));
            list.past_hits = list.past_hits.wrapping_add(magazine.hits.swap(0, Ordering::Relaxed));
            // SAFETY: the magazine's thread is here (contract of `retire`), not inside `with`.
            // Other threads drain under the list's lock, which is held.
            unsafe { magazine.drain(drained) };
            list.spare.push(Arc::clone(magazine));
        });
    }

    /// Takes all blocks out of the calling thread's own magazine, if it is suspended.
    ///
    /// # Safety
    /// Only the magazine's thread may call this.
    pub unsafe fn surrender(&self, magazine: &Magazine<B>, drained: &mut dyn FnMut(B)) {
        if magazine.bytes.load(Ordering::Relaxed) > 0 {
            self.list.with(|list| {
                if list.suspended {
                    // SAFETY: the magazine's thread is here (contract of `surrender`), not inside
                    // `with`. Other threads drain under the list's lock, which is held.
                    unsafe { magazine.drain(drained) };
                }
            });
        }
    }

    /// Suspends all magazines for good, because the pool closes.
    pub fn close(&self, drained: &mut dyn FnMut(B)) {
        self.list.with(|list| list.closed = true);
        self.suspend(drained);
    }

    /// Returns the number of bytes in all magazines, and the number of hits.
    pub fn counters(&self) -> (usize, u64) {
        self.list.with(|list| {
            list.magazines.iter().fold((0_usize, list.past_hits as u64), |(bytes, hits), magazine| {
                (
                    bytes.wrapping_add(magazine.bytes.load(Ordering::Relaxed)),
                    hits + magazine.hits.load(Ordering::Relaxed) as u64,
                )
            })
        })
    }
}

impl<B> Tier<B> for Magazines<B> {
    fn suspend(&self, drained: &mut dyn FnMut(B)) {
        self.list.with(|list| {
            list.suspended = true;
            if list.magazines.is_empty() {
                return;
            }
            for magazine in &list.magazines {
                magazine.suspended.store(true, Ordering::Relaxed);
            }
            if !self.fence.heavy() {
                // Without the fence nothing is known of `busy`. Each thread finds its magazine
                // suspended at its next use, and empties it then.
                return;
            }
            for magazine in &list.magazines {
                // This takes a few instructions, unless the thread is not running.
                while magazine.busy.load(Ordering::Acquire) {
                    pause();
                }
                // SAFETY: `suspended` was raised before the fence and `busy` was down after it, so
                // the magazine's thread stays out. Other threads drain under the list's lock, which
                // is held.
                unsafe { magazine.drain(drained) };
            }
        });
    }

    fn resume(&self) {
        self.list.with(|list| {
            if list.closed {
                return;
            }
            list.suspended = false;
            for magazine in &list.magazines {
                // Release pairs with the load in `with`.
                magazine.suspended.store(false, Ordering::Release);
            }
        });
    }
}

#[cfg(not(loom))]
fn pause() {
    std::thread::yield_now();
}

#[cfg(loom)]
fn pause() {
    loom::thread::yield_now();
}
