//! The upper tier: a cache of free blocks for each thread, which its thread uses without a lock or an atomic
//! read-modify-write.
//!
//! A [`Magazine`] has two flags. Its thread raises `busy`, looks at `suspended`, and if that is down has the racks to itself
//! until it lowers `busy`. Whoever wants the blocks of other threads' magazines (because somebody waits for memory, or to
//! trim) raises `suspended` everywhere, passes a fence that reaches all threads, and waits until each `busy` is down: from then
//! on the threads keep out. The fence is the `sync` module's asymmetric one, so that the threads pay nothing for it.
//!
//! Everything that reaches into several magazines holds the lock of the list of them.

use crate::sync::{AsymmetricFence, AtomicBool, AtomicUsize, Mutex, Ordering, UnsafeCell};
use floodtide_core::pool::{CLASS_COUNT, SizeClass, Tier};
use std::sync::Arc;

/// The most blocks of one class that a thread keeps.
pub(crate) const DEPTH: usize = 16;

/// The free blocks of one class, the last one to be taken first. Above `len` every place is empty.
#[derive(Debug)]
struct Rack<B> {
    blocks: [Option<B>; DEPTH],
    len: u8,
    limit: u8,
}

/// One thread's free blocks.
#[derive(Debug)]
pub struct Magazine<B> {
    /// Its thread is at the racks.
    busy: AtomicBool,
    /// Its thread must keep out.
    suspended: AtomicBool,
    fence: AsymmetricFence,
    /// How often the racks served, and the bytes in them. Written only by whoever has the racks.
    hits: AtomicUsize,
    bytes: AtomicUsize,
    racks: UnsafeCell<Box<[Rack<B>]>>,
}

// SAFETY: the racks are reached by one thread at a time: see the module's text, and loom's models of it.
unsafe impl<B: Send> Send for Magazine<B> {}
// SAFETY: as for `Send`.
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

    /// Runs `f` on the racks; on `None` while they are suspended.
    ///
    /// # Safety
    /// Only the thread that the magazine was made for may call it, and not from within `f`.
    #[inline(always)]
    unsafe fn with<R>(&self, f: impl FnOnce(Option<&mut [Rack<B>]>) -> R) -> R {
        self.busy.store(true, Ordering::Relaxed);
        self.fence.light();
        // Acquire: what was done to the racks while they were suspended is seen.
        if self.suspended.load(Ordering::Acquire) {
            self.busy.store(false, Ordering::Release);
            return f(None);
        }
        // SAFETY: `busy` is up and `suspended` was down after the fence, so whoever suspends waits for `busy`; the thread
        // itself is here once.
        let result = self.racks.with_mut(|racks| f(Some(unsafe { &mut **racks })));
        self.busy.store(false, Ordering::Release);
        result
    }

    /// Takes the block of the class that came last.
    ///
    /// # Safety
    /// Only the thread that the magazine was made for may call it.
    #[inline(always)]
    pub unsafe fn pop(&self, class: SizeClass) -> Option<B> {
        // SAFETY: the caller's promise.
        unsafe {
            self.with(|racks| {
                let rack = &mut racks?[class.index()];
                let top = rack.len.wrapping_sub(1);
                let block = rack.blocks.get_mut(usize::from(top))?.take()?;
                rack.len = top;
                add(&self.bytes, class.size().wrapping_neg());
                add(&self.hits, 1);
                Some(block)
            })
        }
    }

    /// Keeps a block that has the size of its class.
    ///
    /// # Errors
    /// The block, when its rack is full or suspended.
    ///
    /// # Safety
    /// Only the thread that the magazine was made for may call it.
    #[inline(always)]
    pub unsafe fn push(&self, class: SizeClass, block: B) -> Result<(), B> {
        // SAFETY: the caller's promise.
        unsafe {
            self.with(|racks| {
                let Some(racks) = racks else { return Err(block) };
                let rack = &mut racks[class.index()];
                if rack.len >= rack.limit {
                    return Err(block);
                }
                let Some(place) = rack.blocks.get_mut(usize::from(rack.len)) else { return Err(block) };
                // The place is empty; not to drop what is there saves the check.
                std::mem::forget(place.replace(block));
                rack.len += 1;
                add(&self.bytes, class.size());
                Ok(())
            })
        }
    }

    /// Makes room in a full rack: takes out the older half of it.
    ///
    /// # Safety
    /// Only the thread that the magazine was made for may call it.
    pub unsafe fn shed(&self, class: SizeClass) -> [Option<B>; DEPTH] {
        // SAFETY: the caller's promise.
        unsafe {
            self.with(|racks| {
                let mut older = [const { None }; DEPTH];
                let Some(racks) = racks else { return older };
                let rack = &mut racks[class.index()];
                let full = usize::from(rack.len);
                let half = full.div_ceil(2);
                older[..half].swap_with_slice(&mut rack.blocks[..half]);
                rack.blocks[..full].rotate_left(half);
                rack.len -= half as u8;
                add(&self.bytes, (half * class.size()).wrapping_neg());
                older
            })
        }
    }

    /// Takes everything out.
    ///
    /// # Safety
    /// Nobody else may be at the racks: the thread itself is not, or its `busy` was seen down after the fence, and no other
    /// thread is here.
    unsafe fn drain(&self, drained: &mut dyn FnMut(B)) {
        self.racks.with_mut(|racks| {
            // SAFETY: the caller's promise.
            let racks = unsafe { &mut **racks };
            for rack in racks.iter_mut().filter(|rack| rack.len > 0) {
                rack.len = 0;
                rack.blocks.iter_mut().filter_map(Option::take).for_each(&mut *drained);
            }
        });
        self.bytes.store(0, Ordering::Relaxed);
    }
}

/// Adds to a counter that only one thread writes at a time.
#[inline]
fn add(counter: &AtomicUsize, value: usize) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(value), Ordering::Relaxed);
}

#[derive(Debug)]
struct List<B> {
    magazines: Vec<Arc<Magazine<B>>>,
    /// Those of threads that have ended, for the next ones: short-lived threads shall not pay for new ones.
    spare: Vec<Arc<Magazine<B>>>,
    suspended: bool,
    /// Suspended for good.
    closed: bool,
    /// The hits of magazines that are gone.
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
    /// Magazines that keep, of each class, as many blocks as `limits` says, up to [`DEPTH`].
    #[must_use]
    pub fn new(limits: [u8; CLASS_COUNT]) -> Self {
        let limits = limits.map(|limit| limit.min(DEPTH as u8));
        let list = List { magazines: Vec::new(), spare: Vec::new(), suspended: false, closed: false, past_hits: 0 };
        Self { fence: AsymmetricFence::new(), limits, list: Mutex::new(list) }
    }

    /// How many blocks of a class one magazine keeps.
    pub fn depth(&self, class: SizeClass) -> usize {
        usize::from(self.limits[class.index()])
    }

    /// A magazine for the calling thread.
    pub fn add(&self) -> Arc<Magazine<B>> {
        self.list.with(|list| {
            let new = || Arc::new(Magazine::new(self.fence, list.suspended, &self.limits));
            let magazine = list.spare.pop().unwrap_or_else(new);
            magazine.suspended.store(list.suspended, Ordering::Relaxed);
            list.magazines.push(Arc::clone(&magazine));
            magazine
        })
    }

    /// Takes a magazine off the list, for its thread ends, and everything out of it.
    ///
    /// # Safety
    /// Only the thread that the magazine was made for may call it; it may not use the magazine afterwards.
    pub unsafe fn retire(&self, magazine: &Arc<Magazine<B>>, drained: &mut dyn FnMut(B)) {
        self.list.with(|list| {
            list.magazines.retain(|other| !Arc::ptr_eq(other, magazine));
            list.past_hits = list.past_hits.wrapping_add(magazine.hits.swap(0, Ordering::Relaxed));
            // SAFETY: its thread is here, and others need the list's lock.
            unsafe { magazine.drain(drained) };
            list.spare.push(Arc::clone(magazine));
        });
    }

    /// Takes everything out of the calling thread's own magazine, if it is suspended.
    ///
    /// # Safety
    /// Only the thread that the magazine was made for may call it.
    pub unsafe fn surrender(&self, magazine: &Magazine<B>, drained: &mut dyn FnMut(B)) {
        if magazine.bytes.load(Ordering::Relaxed) > 0 {
            self.list.with(|list| {
                if list.suspended {
                    // SAFETY: its thread is here, and others need the list's lock.
                    unsafe { magazine.drain(drained) };
                }
            });
        }
    }

    /// Suspends for good: the pool is closing.
    pub fn close(&self, drained: &mut dyn FnMut(B)) {
        self.list.with(|list| list.closed = true);
        self.suspend(drained);
    }

    /// The bytes kept in all magazines, and how often they served.
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
                // Without the fence nothing is known of `busy`. Each thread finds its magazine suspended when it next comes
                // to it, and surrenders it itself.
                return;
            }
            for magazine in &list.magazines {
                // A few instructions, unless its thread is not running just now.
                while magazine.busy.load(Ordering::Acquire) {
                    pause();
                }
                // SAFETY: `busy` was down after the fence, and others who would drain it need the list's lock.
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
                // Release: pairs with the lend of `with`.
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
