//! The upper tier: a cache of free blocks for each thread, which its thread uses without a lock or an atomic
//! read-modify-write.
//!
//! A [`Magazine`] has two flags. Its thread raises `busy`, looks at `suspended`, and if that is down has the racks to itself
//! until it lowers `busy`. Whoever wants the blocks of other threads' magazines (because somebody waits for memory, or to
//! trim) raises `suspended` everywhere, passes a fence that reaches all threads, and waits until each `busy` is down: from then
//! on the threads keep out. The fence is the [`AsymmetricFence`], so that the threads pay nothing for it.
//!
//! Everything that reaches into several magazines holds the lock of the list of them.

use crate::sync::{AsymmetricFence, AtomicBool, AtomicU8, AtomicUsize, Mutex, Ordering, UnsafeCell};
use floodtide_core::pool::{CLASS_COUNT, SizeClass, Tier};
use std::sync::Arc;

/// The most blocks of one class that a thread keeps.
pub const DEPTH: usize = 16;

/// The free blocks of one class, the last one to be taken first.
type Rack<B> = [Option<B>; DEPTH];

/// One thread's free blocks.
#[derive(Debug)]
pub struct Magazine<B> {
    /// Its thread is at the racks.
    busy: AtomicBool,
    /// Its thread must keep out.
    suspended: AtomicBool,
    fence: AsymmetricFence,
    /// How often the racks served.
    hits: AtomicUsize,
    /// How many blocks of each class there are and may be. The former are written only by whoever has the racks.
    lens: [AtomicU8; CLASS_COUNT],
    limits: [u8; CLASS_COUNT],
    racks: UnsafeCell<Box<[Rack<B>]>>,
}

// SAFETY: the racks are reached by one thread at a time: see the module's text, and loom's models of it.
unsafe impl<B: Send> Send for Magazine<B> {}
// SAFETY: as for `Send`.
unsafe impl<B: Send> Sync for Magazine<B> {}

impl<B> Magazine<B> {
    fn new(fence: AsymmetricFence, suspended: bool, limits: [u8; CLASS_COUNT]) -> Self {
        Self {
            busy: AtomicBool::new(false),
            suspended: AtomicBool::new(suspended),
            fence,
            hits: AtomicUsize::new(0),
            lens: std::array::from_fn(|_| AtomicU8::new(0)),
            limits,
            racks: UnsafeCell::new((0..CLASS_COUNT).map(|_| [const { None }; DEPTH]).collect()),
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
        let len = &self.lens[class.index()];
        // SAFETY: the caller's promise.
        unsafe {
            self.with(|racks| {
                let top = len.load(Ordering::Relaxed).wrapping_sub(1);
                let block = racks?[class.index()].get_mut(usize::from(top))?.take()?;
                len.store(top, Ordering::Relaxed);
                self.hits.store(self.hits.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
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
        let len = &self.lens[class.index()];
        // SAFETY: the caller's promise.
        unsafe {
            self.with(|racks| {
                let top = len.load(Ordering::Relaxed);
                let Some(racks) = racks.filter(|_| top < self.limits[class.index()]) else { return Err(block) };
                let Some(place) = racks[class.index()].get_mut(usize::from(top)) else { return Err(block) };
                // Above `len` every place is empty; not to drop what is there saves the check.
                std::mem::forget(place.replace(block));
                len.store(top + 1, Ordering::Relaxed);
                Ok(())
            })
        }
    }

    /// Makes room in a full rack: takes out the older half of it.
    ///
    /// # Safety
    /// Only the thread that the magazine was made for may call it.
    pub unsafe fn shed(&self, class: SizeClass) -> Vec<B> {
        let len = &self.lens[class.index()];
        // SAFETY: the caller's promise.
        unsafe {
            self.with(|racks| {
                let full = usize::from(len.load(Ordering::Relaxed));
                let Some(racks) = racks else { return Vec::new() };
                let rack = &mut racks[class.index()][..full];
                let half = full.div_ceil(2);
                let older = rack[..half].iter_mut().filter_map(Option::take).collect();
                rack.rotate_left(half);
                len.store((full - half) as u8, Ordering::Relaxed);
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
        self.lens.iter().for_each(|len| len.store(0, Ordering::Relaxed));
        self.racks.with_mut(|racks| {
            // SAFETY: the caller's promise.
            let racks = unsafe { &mut **racks };
            racks.iter_mut().flatten().filter_map(Option::take).for_each(drained);
        });
    }

    /// The bytes in the racks.
    fn bytes(&self) -> usize {
        SizeClass::all()
            .zip(&self.lens)
            .map(|(class, len)| class.bytes() * usize::from(len.load(Ordering::Relaxed)))
            .sum()
    }
}

#[derive(Debug)]
struct List<B> {
    magazines: Vec<Arc<Magazine<B>>>,
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
        let list = List { magazines: Vec::new(), suspended: false, closed: false, past_hits: 0 };
        Self { fence: AsymmetricFence::new(), limits, list: Mutex::new(list) }
    }

    /// How many blocks of a class one magazine keeps.
    pub fn depth(&self, class: SizeClass) -> usize {
        usize::from(self.limits[class.index()])
    }

    /// A magazine for the calling thread.
    pub fn add(&self) -> Arc<Magazine<B>> {
        self.list.with(|list| {
            let magazine = Arc::new(Magazine::new(self.fence, list.suspended, self.limits));
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
            list.past_hits = list.past_hits.wrapping_add(magazine.hits.load(Ordering::Relaxed));
            // SAFETY: its thread is here, and others need the list's lock.
            unsafe { magazine.drain(drained) };
        });
    }

    /// Takes everything out of the calling thread's own magazine, if it is suspended.
    ///
    /// # Safety
    /// Only the thread that the magazine was made for may call it.
    pub unsafe fn surrender(&self, magazine: &Magazine<B>, drained: &mut dyn FnMut(B)) {
        if magazine.bytes() > 0 {
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
            list.magazines.iter().fold((0, list.past_hits as u64), |(bytes, hits), magazine| {
                (bytes + magazine.bytes(), hits + magazine.hits.load(Ordering::Relaxed) as u64)
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
                // Release: pairs with the acquire of `with`.
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
