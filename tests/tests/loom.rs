//! Checks every interleaving of the slot ledger and of the pool with loom: `RUSTFLAGS="--cfg loom"
//! cargo test -p floodtide-tests --test loom`.
#![cfg(loom)]

use floodtide_memory::testing::SlotLedger;
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

/// Two slices of memory with the ledger that guards them, as in the arena; loom reports any access
/// that races.
struct Guarded {
    ledger: SlotLedger,
    slots: [UnsafeCell<u8>; 2],
}

impl Guarded {
    fn new() -> Arc<Self> {
        Arc::new(Self { ledger: SlotLedger::new(2), slots: [UnsafeCell::new(0), UnsafeCell::new(0)] })
    }

    /// Acts as a worker: acquires a slice, fills it, releases it.
    fn fill(&self, slot: usize) -> bool {
        let lent = self.ledger.acquire(slot);
        if lent {
            // SAFETY: the ledger lends a slice once, and nothing is frozen while it is lent: this
            // test checks it.
            self.slots[slot].with_mut(|byte| unsafe { *byte += 1 });
            self.ledger.release();
        }
        lent
    }

    /// Acts as the end of a load: freezes, then reads everything.
    fn read_if_frozen(&self) -> Option<u8> {
        // SAFETY: frozen means that no slice is lent and none will be: this test checks it.
        self.ledger.freeze().then(|| self.slots.iter().map(|slot| slot.with(|byte| unsafe { *byte })).sum())
    }
}

#[test]
fn a_slice_is_acquired_by_one_of_two_workers() {
    loom::model(|| {
        let guarded = Guarded::new();
        let other = Arc::clone(&guarded);
        let worker = thread::spawn(move || other.fill(0));
        let mine = guarded.fill(0);
        let others = worker.join().unwrap();
        assert!(mine != others, "exactly one gets it");
        assert_eq!(guarded.read_if_frozen(), Some(1));
    });
}

#[test]
fn a_freeze_sees_every_write_or_does_not_happen() {
    loom::model(|| {
        let guarded = Guarded::new();
        let workers: Vec<_> = (0..2)
            .map(|slot| {
                let guarded = Arc::clone(&guarded);
                thread::spawn(move || guarded.fill(slot))
            })
            .collect();
        // Races with both workers, but sees only complete slices.
        let early = guarded.read_if_frozen();
        let filled: u8 = workers.into_iter().map(|worker| u8::from(worker.join().unwrap())).sum();
        match early {
            Some(sum) => assert_eq!(sum, filled, "a frozen arena never changes"),
            None => assert_eq!(guarded.read_if_frozen(), Some(filled)),
        }
        assert!(!guarded.fill(0), "nothing is lent after the freeze");
    });
}

/// The two tiers of the pool over counted memory, used by loom's threads.
mod pool {
    use floodtide_core::pool::{Depot, Growing, Provider, SizeClass, Turn};
    use floodtide_memory::testing::{Magazine, Magazines};
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicUsize, Ordering};
    use loom::thread;
    use std::task::{Poll, Wake, Waker};

    const KB: usize = 1024;

    /// Counts allocations, which must not exceed `max`.
    struct Counted {
        live: Arc<AtomicUsize>,
        max: usize,
    }

    struct Block {
        /// Written by each borrower, so that loom reports two at a time.
        mark: loom::cell::UnsafeCell<u32>,
        live: Arc<AtomicUsize>,
    }

    impl Drop for Block {
        fn drop(&mut self) {
            self.live.fetch_sub(KB, Ordering::Relaxed);
        }
    }

    impl Provider for Counted {
        type Block = Block;
        type Error = ();

        fn allocate(&self, bytes: usize) -> Result<Block, ()> {
            assert_eq!(bytes, KB);
            let live = self.live.fetch_add(KB, Ordering::Relaxed) + KB;
            assert!(live <= self.max, "the limit is passed");
            Ok(Block { mark: loom::cell::UnsafeCell::new(0), live: Arc::clone(&self.live) })
        }

        fn byte_len(&self, _: &Block) -> usize {
            KB
        }
    }

    type TestDepot = Depot<Counted, Magazines<Block>, Growing, 1>;

    fn depot(blocks: usize) -> Arc<TestDepot> {
        let provider = Counted { live: Arc::new(AtomicUsize::new(0)), max: blocks * KB };
        Arc::new(Depot::new(provider, Magazines::new([1; floodtide_core::pool::CLASS_COUNT]), blocks * KB))
    }

    fn class() -> SizeClass {
        SizeClass::holding(KB).unwrap()
    }

    struct Unpark(thread::Thread);

    impl Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }

    /// A thread's path to the pool, as in `memory`: its magazine, then the depot, then the queue.
    struct Borrower {
        depot: Arc<TestDepot>,
        magazine: std::sync::Arc<Magazine<Block>>,
    }

    impl Borrower {
        fn new(depot: &Arc<TestDepot>) -> Self {
            Self { depot: Arc::clone(depot), magazine: depot.tier().add() }
        }

        fn get(&self) -> Block {
            // SAFETY: the magazine is this thread's.
            let block = unsafe { self.magazine.pop(class()) }
                .or_else(|| self.depot.try_take(KB, 0).ok())
                .unwrap_or_else(|| self.wait());
            // SAFETY: a block is lent to one borrower at a time: this test checks it.
            block.mark.with_mut(|mark| unsafe { *mark += 1 });
            block
        }

        fn wait(&self) -> Block {
            let waker = Waker::from(std::sync::Arc::new(Unpark(thread::current())));
            let mut turn = Turn::new();
            loop {
                if let Poll::Ready(block) = self.depot.poll_take(KB, 0, &mut turn, &waker) {
                    return block.unwrap_or_else(|_| panic!("it fits"));
                }
                thread::park();
            }
        }

        fn give(&self, block: Block) {
            // SAFETY: as in `get`.
            block.mark.with_mut(|mark| unsafe { *mark += 1 });
            // SAFETY: the magazine is this thread's.
            if let Err(block) = unsafe { self.magazine.push(class(), block) } {
                self.depot.give(block, 0);
            }
        }
    }

    impl Drop for Borrower {
        /// Ends the thread.
        fn drop(&mut self) {
            let mut drained = Vec::new();
            // SAFETY: the magazine is this thread's, which ends here.
            unsafe { self.depot.tier().retire(&self.magazine, &mut |block| drained.push(block)) };
            for block in drained {
                self.depot.give(block, 0);
            }
        }
    }

    fn check(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(preemptions);
        builder.check(model);
    }

    /// Gets a block and returns it.
    fn borrow(depot: &Arc<TestDepot>) -> thread::JoinHandle<()> {
        let depot = Arc::clone(depot);
        thread::spawn(move || {
            let borrower = Borrower::new(&depot);
            let block = borrower.get();
            borrower.give(block);
        })
    }

    /// The same, but skips the magazine and waits for the depot.
    fn wait(depot: &Arc<TestDepot>) -> thread::JoinHandle<()> {
        let depot = Arc::clone(depot);
        thread::spawn(move || {
            let borrower = Borrower::new(&depot);
            let block = borrower.wait();
            borrower.give(block);
        })
    }

    /// Asserts that every block is on the free lists again, and that the counters agree.
    fn settled(depot: &TestDepot) {
        let (cached, hits) = depot.tier().counters();
        let stats = depot.stats(cached, hits);
        assert_eq!((stats.lent, cached), (0, 0));
        assert_eq!(stats.retained, depot.provider().live.load(Ordering::Relaxed));
        assert_eq!(depot.trim(), stats.retained);
        assert_eq!(depot.provider().live.load(Ordering::Relaxed), 0);
        assert!(!depot.has_waiters());
    }

    #[test]
    fn two_borrowers_of_one_block_wait_for_one_another() {
        check(3, || {
            let depot = depot(1);
            let thread = borrow(&depot);
            let borrower = Borrower::new(&depot);
            let block = borrower.get();
            borrower.give(block);
            drop(borrower);
            thread.join().unwrap();
            settled(&depot);
        });
    }

    #[test]
    fn two_producers_and_two_consumers_share_two_blocks() {
        check(2, || {
            let depot = depot(2);
            let produce = |depot: &Arc<TestDepot>| {
                let depot = Arc::clone(depot);
                thread::spawn(move || Borrower::new(&depot).get())
            };
            // Blocks are taken on one thread and returned on another.
            let producers = [produce(&depot), produce(&depot)];
            let consumers = producers.map(|producer| {
                let block = producer.join().unwrap();
                let depot = Arc::clone(&depot);
                thread::spawn(move || Borrower::new(&depot).give(block))
            });
            let borrower = Borrower::new(&depot);
            let block = borrower.get();
            borrower.give(block);
            drop(borrower);
            consumers.into_iter().for_each(|consumer| consumer.join().unwrap());
            settled(&depot);
        });
    }

    #[test]
    fn a_cancelled_waiter_leaves_its_turn_to_the_next() {
        check(2, || {
            let depot = depot(1);
            let block = depot.try_take(KB, 0).unwrap_or_else(|_| panic!("it fits"));
            let impatient = {
                let depot = Arc::clone(&depot);
                thread::spawn(move || {
                    let waker = Waker::from(std::sync::Arc::new(Unpark(thread::current())));
                    let mut turn = Turn::new();
                    let polled = depot.poll_take(KB, 0, &mut turn, &waker);
                    depot.cancel(&mut turn);
                    if let Poll::Ready(Ok(block)) = polled {
                        depot.give(block, 0);
                    }
                })
            };
            let patient = wait(&depot);
            depot.give(block, 0);
            impatient.join().unwrap();
            patient.join().unwrap();
            settled(&depot);
        });
    }

    #[test]
    fn a_thread_that_ends_with_a_full_magazine_feeds_who_waits() {
        check(3, || {
            let depot = depot(1);
            let borrower = Borrower::new(&depot);
            let block = borrower.get();
            borrower.give(block);
            let waiter = borrow(&depot);
            // The magazine is full, and ends with this thread.
            drop(borrower);
            waiter.join().unwrap();
            settled(&depot);
        });
    }

    #[test]
    fn no_magazine_keeps_a_block_from_who_waits() {
        check(3, || {
            let depot = depot(1);
            let early = Borrower::new(&depot);
            let block = early.get();
            let waiter = borrow(&depot);
            early.give(block);
            waiter.join().unwrap();
            // Join only now: the waiter must not depend on the end of this thread.
            drop(early);
            settled(&depot);
        });
    }

    #[test]
    fn nor_does_a_magazine_that_is_made_while_somebody_waits() {
        check(3, || {
            let depot = depot(1);
            let block = depot.try_take(KB, 0).unwrap_or_else(|_| panic!("it fits"));
            let waiter = wait(&depot);
            let late = Borrower::new(&depot);
            late.give(block);
            waiter.join().unwrap();
            drop(late);
            settled(&depot);
        });
    }

    #[test]
    fn memory_that_leaves_the_pool_wakes_who_waits() {
        check(3, || {
            let depot = depot(1);
            let block = depot.try_take(KB, 0).unwrap_or_else(|_| panic!("it fits"));
            let waiter = wait(&depot);
            depot.release(block);
            waiter.join().unwrap();
            settled(&depot);
        });
    }

    #[test]
    fn a_trim_and_a_borrower_agree_on_what_is_kept() {
        check(3, || {
            let depot = depot(1);
            let other = Arc::clone(&depot);
            let trimmer = thread::spawn(move || other.trim());
            let borrower = Borrower::new(&depot);
            for _ in 0..2 {
                let block = borrower.get();
                borrower.give(block);
            }
            drop(borrower);
            trimmer.join().unwrap();
            settled(&depot);
        });
    }
}
