//! The pool as its users see it.

use super::*;
use crate::sync::{AtomicUsize, Ordering};
use std::io::Write;
use std::sync::Barrier;
use std::sync::mpsc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

const KB: usize = 1024;

fn pool(limit: usize) -> Pool {
    Pool::builder().limit(limit).memory(Counting::default()).build()
}

/// The heap, with a count of allocated blocks.
#[derive(Debug, Default, Clone)]
struct Counting {
    live: Arc<AtomicUsize>,
}

struct Live(MemoryBlock, Arc<AtomicUsize>);

impl Drop for Live {
    fn drop(&mut self) {
        self.1.fetch_sub(self.0.capacity(), Ordering::Relaxed);
    }
}

impl MemoryProvider for Counting {
    fn allocate(&self, bytes: usize) -> io::Result<MemoryBlock> {
        let memory = HeapMemory::new().allocate(bytes)?;
        self.live.fetch_add(bytes, Ordering::Relaxed);
        let start = memory.start();
        // SAFETY: the owner holds the memory, and nothing else touches it.
        Ok(unsafe { MemoryBlock::from_raw(start, bytes, Live(memory, Arc::clone(&self.live))) })
    }
}

#[test]
fn a_buffer_shows_only_what_was_filled() {
    let pool = pool(100 * KB);
    let mut buffer = pool.get(10_000).expect("fits");
    assert_eq!((buffer.len(), buffer.capacity()), (0, 10_000));
    assert!(buffer.max_capacity() >= 10_000 && buffer.as_ptr().align_offset(4096) == 0);
    buffer.extend_from_slice(b"secret");
    buffer[0] = b'S';
    assert_eq!(&buffer[..], b"Secret");
    let address = buffer.as_ptr();
    drop(buffer);
    let again = pool.get(10_000).expect("fits");
    assert_eq!((again.as_ptr(), again.len()), (address, 0), "the same memory, and nothing to be seen of it");
    drop(again);
    let zeroed = pool.get_zeroed(9_000).expect("fits");
    assert_eq!((zeroed.as_ptr(), zeroed.len()), (address, 9_000));
    assert!(zeroed.iter().all(|&byte| byte == 0));
}

#[test]
fn fresh_zeroed_memory_that_was_written_to_is_zeroed_again() {
    let pool = pool(100 * KB);
    let mut buffer = pool.get_zeroed(2000).expect("fits");
    buffer.fill(7);
    drop(buffer);
    assert!(pool.get_zeroed(2000).expect("fits").iter().all(|&byte| byte == 0));
}

#[test]
fn a_view_shrinks_and_never_passes_its_class() {
    let pool = pool(100 * KB);
    let mut buffer = pool.get(10_000).expect("fits");
    buffer.fill_with_zeros();
    assert!(buffer.set_capacity(100));
    assert_eq!((buffer.len(), buffer.capacity(), buffer.spare().len()), (100, 100, 0));
    assert_eq!(buffer.write(b"more").expect("writes what fits"), 0);
    let max = buffer.max_capacity();
    assert!(!buffer.set_capacity(max + 1) && buffer.capacity() == 100);
    assert!(buffer.set_capacity(max));
    assert_eq!(buffer.len(), 100, "what came to the view is not filled");
    buffer.truncate(10);
    assert_eq!(buffer.len(), 10);
    buffer.clear();
    assert!(buffer.is_empty());
}

#[test]
fn the_limit_holds_and_errors_say_what_to_do() {
    let pool = pool(8 * KB);
    let first = pool.try_get(5 * KB).expect("fits");
    let error = pool.try_get(5 * KB).expect_err("exhausted");
    assert_eq!(
        error.to_string(),
        "the pool's 8.0 KiB are in use, so it has no buffer of 5.0 KiB now; drop buffers or wait"
    );
    let error = pool.get(9 * KB).expect_err("never");
    assert!(
        matches!(error, PoolError::TooLarge { .. })
            && error.kind() == ErrorKind::InvalidRequest
            && error.to_string().contains("raise the limit")
    );
    let error = pool.get_timeout(5 * KB, Duration::from_millis(5)).expect_err("nobody gives back");
    assert!(matches!(error, PoolError::TimedOut { .. }) && error.kind() == ErrorKind::Stalled);
    drop(first);
    let stats = pool.stats();
    assert_eq!((stats.lent, stats.retained, stats.waits), (0, 5 * KB, 1));
    assert!(pool.get_timeout(8 * KB, Duration::from_millis(5)).is_ok(), "what the magazine kept makes room");
}

#[test]
fn blocked_threads_are_served_in_the_order_in_which_they_came() {
    let pool = pool(8 * KB);
    let all = pool.get(8 * KB).expect("fits");
    let (served, order) = mpsc::channel();
    let waiters: Vec<_> = (0..4)
        .map(|i| {
            let (in_pool, served) = (pool.clone(), served.clone());
            let waiter = thread::spawn(move || {
                let buffer = in_pool.get(8 * KB).expect("in the end");
                served.send(i).expect("the test listens");
                drop(buffer);
            });
            while pool.stats().waits < i + 1 {
                thread::yield_now();
            }
            waiter
        })
        .collect();
    drop(all);
    waiters.into_iter().for_each(|waiter| waiter.join().expect("no panic"));
    assert_eq!(order.try_iter().collect::<Vec<u64>>(), [0, 1, 2, 3]);
    assert_eq!(pool.stats().lent, 0);
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_dropped_future_passes_its_turn_on() {
    let pool = pool(8 * KB);
    let all = pool.get(8 * KB).expect("fits");
    let wakes: [Arc<Count>; 2] = Default::default();
    let mut futures: Vec<_> = (0..2).map(|_| Box::pin(pool.get_async(4 * KB))).collect();
    let poll = |i: usize, future: &mut std::pin::Pin<Box<Get>>| {
        let waker = Waker::from(Arc::clone(&wakes[i]));
        future.as_mut().poll(&mut Context::from_waker(&waker))
    };
    use std::future::Future;
    for (i, future) in futures.iter_mut().enumerate() {
        assert!(poll(i, future).is_pending());
    }
    drop(all);
    assert_eq!((wakes[0].0.load(Ordering::Relaxed), wakes[1].0.load(Ordering::Relaxed)), (1, 0));
    drop(futures.remove(0));
    assert_eq!(wakes[1].0.load(Ordering::Relaxed), 1);
    let Poll::Ready(buffer) = poll(1, &mut futures[0]) else { panic!("its turn") };
    assert_eq!(buffer.expect("fits").capacity(), 4 * KB);
    drop(futures);
    assert!(matches!(poll(0, &mut Box::pin(pool.get_async(KB))), Poll::Ready(Ok(_))), "free again: at once");
}

#[test]
fn the_magazine_of_a_finished_thread_flows_back() {
    let pool = pool(1024 * KB);
    let in_thread = pool.clone();
    let kept = thread::spawn(move || {
        let buffers: Vec<_> = (0..10).map(|_| in_thread.get(KB).expect("fits")).collect();
        let kept = in_thread.get(2 * KB).expect("fits");
        drop(buffers);
        kept
    })
    .join()
    .expect("no panic");
    assert_eq!(pool.stats().retained, 10 * KB, "none is lost");
    // What outlived its thread comes back from here.
    drop(kept);
    let buffers: Vec<_> = (0..10).map(|_| pool.get(KB).expect("fits")).collect();
    assert_eq!(pool.stats().misses, 11, "the next thread allocates nothing");
    drop(buffers);
    assert_eq!(pool.trim(), 12 * KB);
    assert_eq!(pool.stats().retained, 0);
}

#[test]
fn a_thread_that_panics_loses_no_buffer() {
    let pool = pool(8 * KB);
    let in_thread = pool.clone();
    thread::spawn(move || {
        let _buffer = in_thread.get(8 * KB).expect("fits");
        std::panic::resume_unwind(Box::new("on purpose"));
    })
    .join()
    .expect_err("it panicked");
    assert!(pool.try_get(8 * KB).is_ok());
}

#[test]
fn two_pools_on_one_thread_keep_their_magazines() {
    let pools = [pool(100 * KB), pool(100 * KB)];
    for _ in 0..100 {
        pools.iter().for_each(|pool| drop(pool.get(KB).expect("fits")));
    }
    for pool in pools {
        assert_eq!((pool.stats().hits, pool.stats().misses), (99, 1));
    }
}

#[test]
fn more_pools_than_slots_work_too() {
    let pools: Vec<Pool> = (0..40).map(|_| pool(100 * KB)).collect();
    for _ in 0..2 {
        pools.iter().for_each(|pool| drop(pool.get(KB).expect("fits")));
    }
    assert!(pools.iter().all(|pool| (pool.stats().hits, pool.stats().misses) == (1, 1)));
    drop(pools);
    // The slots are free again, and this thread's old magazines do not count as the new pool's.
    let pool = pool(100 * KB);
    drop(pool.get(KB).expect("fits"));
    assert_eq!(pool.stats().misses, 1);
}

#[test]
fn a_pool_that_is_gone_keeps_no_memory() {
    let memory = Counting::default();
    let pool = Pool::builder().limit(100 * KB).memory(memory.clone()).build();
    let lent = pool.get(10 * KB).expect("fits");
    drop(pool.get(KB).expect("fits"));
    let in_thread = pool.clone();
    let (done, wait) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let barriers = (Arc::clone(&done), Arc::clone(&wait));
    let other = thread::spawn(move || {
        drop(in_thread.get(2 * KB).expect("fits"));
        drop(in_thread);
        barriers.0.wait();
        barriers.1.wait();
    });
    done.wait();
    drop(pool);
    assert_eq!(memory.live.load(Ordering::Relaxed), 10 * KB, "other threads' magazines are emptied too");
    wait.wait();
    other.join().expect("no panic");
    assert_eq!(lent.capacity(), 10 * KB);
    drop(lent);
    assert_eq!(memory.live.load(Ordering::Relaxed), 0, "what comes back late is freed");
}

#[test]
fn detached_memory_stays_and_can_be_adopted() {
    let pool = pool(8 * KB);
    let mut buffer = pool.get(8 * KB).expect("fits");
    buffer.extend_from_slice(b"mine");
    let memory = buffer.detach();
    assert_eq!((&memory[..], pool.stats().lent), (&b"mine"[..], 0));
    let blocker = pool.get(KB).expect("the limit is free again");
    let (memory, error) = pool.adopt(memory).expect_err("no room");
    assert!(matches!(error, PoolError::Exhausted { .. }) && error.kind() == ErrorKind::Stalled);
    drop(blocker);
    let buffer = pool.adopt(memory).expect("there is room");
    assert_eq!((&buffer[..], pool.stats().lent), (&b"mine"[..], 8 * KB));
    drop(buffer);
    assert_eq!(pool.stats().retained, 8 * KB);
    let unaligned = HeapMemory::aligned(floodtide_core::Alignment::ONE);
    let crooked = (0..64).map(|_| unaligned.allocate(KB).expect("allocates"));
    let crooked: Vec<MemoryBlock> = crooked.collect();
    let crooked = crooked.into_iter().find(|memory| memory.start().as_ptr().align_offset(4096) != 0).expect("one is");
    assert!(matches!(pool.adopt(crooked), Err((_, PoolError::Unsuitable { .. }))));
    let tiny = HeapMemory::new().allocate(10).expect("allocates");
    let (_, error) = pool.adopt(tiny).expect_err("too small");
    assert!(matches!(error, PoolError::Unsuitable { .. }) && error.kind() == ErrorKind::InvalidRequest);
    assert!(error.to_string().contains("borrow a buffer of the pool"), "{error}");
}

#[test]
fn threads_that_borrow_and_wait_all_end_and_lose_nothing() {
    let pool = pool(64 * KB);
    let (rounds, threads) = if cfg!(miri) { (20, 3) } else { (20_000, 4) };
    let workers: Vec<_> = (0..threads)
        .map(|seed: usize| {
            let pool = pool.clone();
            thread::spawn(move || {
                let mut random = seed.wrapping_mul(0x9E37_79B9) | 1;
                for _ in 0..rounds {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    // Sizes from 1 KiB to 40 KiB, often more together than the limit.
                    let bytes = KB + random % (39 * KB);
                    match random >> 32 & 3 {
                        0 => drop(pool.try_get(bytes)),
                        1 => drop(pool.get_timeout(bytes, Duration::from_micros(10))),
                        2 => {
                            pool.trim();
                        }
                        _ => {
                            let mut buffer = pool.get(bytes).expect("waits");
                            buffer.extend_from_slice(&[seed.to_le_bytes()[0]; 16]);
                            thread::yield_now();
                            assert_eq!(&buffer[..], [seed.to_le_bytes()[0]; 16], "nobody else writes to it");
                        }
                    }
                    let stats = pool.stats();
                    assert!(stats.lent <= stats.limit);
                }
            })
        })
        .collect();
    workers.into_iter().for_each(|worker| worker.join().expect("no panic"));
    let stats = pool.stats();
    assert_eq!(stats.lent, 0);
    assert_eq!(pool.trim(), stats.retained);
}

#[test]
fn a_provider_that_refuses_is_reported() {
    #[derive(Debug)]
    struct Refuses;
    impl MemoryProvider for Refuses {
        fn allocate(&self, _: usize) -> io::Result<MemoryBlock> {
            Err(io::Error::from(io::ErrorKind::OutOfMemory))
        }
    }
    let pool = Pool::builder().limit(8 * KB).memory(Refuses).build();
    let error = pool.get(KB).expect_err("refused");
    assert!(matches!(error, PoolError::Allocation { .. }) && error.kind() == ErrorKind::OutOfMemory);
    let words = error.to_string();
    assert!(words.contains("free memory") && words.contains("ulimit -l"), "{words}");
    assert_eq!(pool.stats().lent, 0);
}

#[test]
fn mapped_memory_is_aligned_and_zero_and_may_be_locked() {
    for provider in [MappedMemory::new(), MappedMemory::locked(LockPolicy::BestEffort)] {
        // Miri is slow for each byte.
        for bytes in [KB, if cfg!(miri) { 8 * KB } else { 3 << 20 }] {
            let mut memory = provider.allocate(bytes).expect("maps");
            memory.zero(bytes);
            memory.set_filled(bytes);
            assert_eq!((memory.capacity(), memory.start().as_ptr().align_offset(4096)), (bytes, 0));
            assert!(memory.iter().all(|&byte| byte == 0));
        }
        assert_eq!(provider.unlocked_bytes(), 0, "what is gone does not count");
    }
    // Miri itself ends the program when memory runs out.
    assert!(cfg!(miri) || SystemMemory::default().allocate(isize::MAX as usize).is_err());
}

#[test]
fn memory_that_was_only_lent_in_slices_is_zeroed_too() {
    use crate::split_buffer::SplitBuffer;
    use floodtide_core::Buffer;
    let pool = pool(100 * KB);
    // As a stream that fails leaves it: written to through a slice, and never declared filled.
    let buffer = SplitBuffer::new(pool.get(4 * KB).expect("fits"), vec![0..2 * KB, 2 * KB..4 * KB]).expect("disjoint");
    (0..2).for_each(|slot| buffer.take(slot).expect("once").memory().fill(7));
    drop(buffer);
    let zeroed = pool.get_zeroed(4 * KB).expect("fits");
    assert_eq!(pool.stats().hits, 1, "the same memory");
    assert!(zeroed.iter().all(|&byte| byte == 0));
}

#[test]
fn a_provider_that_does_not_keep_its_alignment_is_found_out() {
    #[derive(Debug)]
    struct Crooked;
    impl MemoryProvider for Crooked {
        fn allocate(&self, bytes: usize) -> io::Result<MemoryBlock> {
            let memory = HeapMemory::new().allocate(bytes + 1)?;
            let start = std::ptr::NonNull::new(memory.start().as_ptr().wrapping_add(1)).expect("not null");
            // SAFETY: the bytes lie in memory that the owner holds, which nobody else touches.
            Ok(unsafe { MemoryBlock::from_raw(start, bytes, memory) })
        }
    }
    let error = Pool::builder().limit(8 * KB).memory(Crooked).build().get(KB).expect_err("crooked");
    assert!(error.to_string().contains("not aligned to the 4096 bytes it promises"), "{error}");
}

#[test]
#[should_panic(expected = "8 bytes do not fit in the 4 left of a buffer of 10")]
fn more_than_fits_says_so() {
    let mut buffer = pool(100 * KB).get(10).expect("fits");
    buffer.extend_from_slice(b"secret");
    buffer.extend_from_slice(b"secrets!");
}
