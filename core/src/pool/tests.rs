//! The depot compared with a plain model: limits, order and accounting under any calls.

mod borrowing;

use super::*;
use crate::sync::{AtomicBool, AtomicUsize, Mutex, Ordering};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::task::Wake;
use alloc::vec::Vec;
use core::task::{Poll, Waker};
use proptest::prelude::*;

/// Memory that is only counted.
#[derive(Debug, Default)]
struct Counted {
    live: Arc<AtomicUsize>,
    refuse: AtomicBool,
}

#[derive(Debug)]
struct Block {
    bytes: usize,
    live: Arc<AtomicUsize>,
}

impl Drop for Block {
    fn drop(&mut self) {
        self.live.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Provider for Counted {
    type Block = Block;
    type Error = ();

    fn allocate(&self, bytes: usize) -> Result<Block, ()> {
        if self.refuse.load(Ordering::Relaxed) && self.live.load(Ordering::Relaxed) > 0 {
            return Err(());
        }
        self.live.fetch_add(bytes, Ordering::Relaxed);
        Ok(Block { bytes, live: Arc::clone(&self.live) })
    }

    fn byte_len(&self, block: &Block) -> usize {
        block.bytes
    }
}

/// An upper tier that keeps what it receives.
#[derive(Debug, Default)]
struct Cache {
    kept: Mutex<Vec<Block>>,
    suspended: AtomicBool,
}

impl Tier<Block> for Cache {
    fn suspend(&self, drained: &mut dyn FnMut(Block)) {
        self.suspended.store(true, Ordering::Relaxed);
        self.kept.with(core::mem::take).into_iter().for_each(drained);
    }
    fn resume(&self) {
        self.suspended.store(false, Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

const KB: usize = 1024;

fn depot<S: Containers>(limit: usize) -> Depot<Counted, (), S, 2> {
    Depot::new(Counted::default(), (), limit)
}

type Polled = Poll<Result<Block, TakeError<()>>>;

fn waiting<T: Tier<Block>, S: Containers>(depot: &Depot<Counted, T, S, 2>, bytes: usize) -> (Turn, Arc<Flag>, Polled) {
    let (mut turn, flag) = (Turn::new(), Arc::new(Flag::default()));
    let polled = depot.poll_take(bytes, 0, &mut turn, &Waker::from(Arc::clone(&flag)));
    (turn, flag, polled)
}

fn woken(flag: &Flag) -> bool {
    flag.0.swap(false, Ordering::Relaxed)
}

#[test]
fn a_block_that_came_back_is_lent_again() {
    let depot = depot::<Growing>(100 * KB);
    let first = depot.try_take(10 * KB, 0).expect("fits");
    depot.give(first, 0);
    // From any thread, and for any request of the class.
    let again = depot.try_take(9 * KB, 1).expect("fits");
    let stats = depot.stats(0, 0);
    assert_eq!((stats.hits, stats.misses, stats.lent, stats.retained), (1, 1, again.bytes, 0));
    depot.give(again, 1);
    assert_eq!((depot.stats(0, 0).retained, depot.trim()), (10 * KB, 10 * KB));
    assert_eq!(depot.provider().live.load(Ordering::Relaxed), 0);
}

#[test]
fn a_request_that_only_rounding_pushes_over_the_limit_is_served_exactly() {
    let depot = depot::<Growing>(9 * KB);
    assert_eq!(depot.try_take(9 * KB + 1, 0).expect_err("too large"), TakeError::TooLarge);
    let block = depot.try_take(9 * KB, 0).expect("exactly the limit");
    assert_eq!(block.bytes, 9 * KB);
    depot.give(block, 0);
    let block = depot.try_take(9 * KB - 1, 0).expect("from the free list");
    assert_eq!((block.bytes, depot.stats(0, 0).hits), (9 * KB, 1));
}

#[test]
fn retained_blocks_of_other_classes_make_room() {
    let depot = depot::<Growing>(16 * KB);
    let blocks: Vec<Block> = (0..4).map(|i| depot.try_take(4 * KB, i).expect("fits")).collect();
    assert_eq!(depot.try_take(KB, 0).expect_err("all lent"), TakeError::Exhausted);
    blocks.into_iter().enumerate().for_each(|(i, block)| depot.give(block, i));
    let whole = depot.try_take(16 * KB, 0).expect("the free lists are emptied for it");
    assert_eq!((whole.bytes, depot.stats(0, 0).retained), (16 * KB, 0));
}

#[test]
fn memory_that_the_system_lacks_is_taken_from_the_free_lists() {
    let depot = depot::<Growing>(100 * KB);
    let (small, other) = (depot.try_take(KB, 0).expect("fits"), depot.try_take(2 * KB, 0).expect("fits"));
    depot.give(small, 1);
    depot.give(other, 0);
    depot.provider().refuse.store(true, Ordering::Relaxed);
    let block = depot.try_take(50 * KB, 0).expect("after the free lists were emptied");
    assert_eq!(depot.try_take(KB, 0).expect_err("nothing to empty"), TakeError::Provider(()));
    assert_eq!(depot.stats(0, 0).lent, block.bytes, "what failed does not count");
}

#[test]
fn waiters_are_served_in_order_and_nobody_overtakes() {
    let depot = depot::<Growing>(8 * KB);
    let all = depot.try_take(8 * KB, 0).expect("fits");
    let (mut large, large_flag, polled) = waiting(&depot, 8 * KB);
    assert!(polled.is_pending());
    let (mut small, small_flag, polled) = waiting(&depot, KB);
    assert!(polled.is_pending());
    depot.give(all, 0);
    assert!(woken(&large_flag) && !woken(&small_flag), "only the first is woken");
    assert_eq!(depot.try_take(KB, 0).expect_err("others wait"), TakeError::Exhausted);
    depot.take_retained(KB, 0, 1, |_| panic!("others wait"));
    let waker = Waker::from(Arc::clone(&small_flag));
    assert!(depot.poll_take(KB, 0, &mut small, &waker).is_pending(), "not its turn");
    let waker = Waker::from(Arc::clone(&large_flag));
    let Poll::Ready(Ok(all)) = depot.poll_take(8 * KB, 0, &mut large, &waker) else { panic!("it is its turn") };
    assert!(!large.is_waiting() && woken(&small_flag), "the next is woken");
    let waker = Waker::from(Arc::clone(&small_flag));
    assert!(depot.poll_take(KB, 0, &mut small, &waker).is_pending(), "all is lent");
    depot.release(all);
    assert!(woken(&small_flag));
    assert!(matches!(depot.poll_take(KB, 0, &mut small, &waker), Poll::Ready(Ok(_))));
    assert_eq!((depot.has_waiters(), depot.stats(0, 0).waits), (false, 2));
}

#[test]
fn a_cancelled_waiter_passes_its_turn_on() {
    let depot = depot::<Growing>(8 * KB);
    let all = depot.try_take(8 * KB, 0).expect("fits");
    let (mut first, first_flag, _) = waiting(&depot, 8 * KB);
    let (mut second, second_flag, _) = waiting(&depot, 8 * KB);
    depot.give(all, 0);
    assert!(woken(&first_flag) && !woken(&second_flag));
    depot.cancel(&mut first);
    assert!(woken(&second_flag), "the wake-up of the first is not lost");
    let waker = Waker::from(second_flag);
    assert!(matches!(depot.poll_take(8 * KB, 0, &mut second, &waker), Poll::Ready(Ok(_))));
    depot.cancel(&mut second);
    assert!(!depot.has_waiters());
}

#[test]
fn the_upper_tier_is_emptied_before_anybody_waits() {
    let depot: Depot<Counted, Cache, Growing, 2> = Depot::new(Counted::default(), Cache::default(), 8 * KB);
    let cached = depot.try_take(8 * KB, 0).expect("fits");
    depot.tier().kept.with(|kept| kept.push(cached));
    let block = depot.try_take(KB, 0).expect("the cached block made room");
    assert!(!depot.tier().suspended.load(Ordering::Relaxed));
    let (mut turn, _, polled) = waiting(&depot, 8 * KB);
    assert!(polled.is_pending() && depot.tier().suspended.load(Ordering::Relaxed), "suspended while somebody waits");
    depot.cancel(&mut turn);
    assert!(!depot.tier().suspended.load(Ordering::Relaxed));
    depot.tier().kept.with(|kept| kept.push(block));
    assert_eq!(depot.trim(), KB, "a trim reaches the upper tier too");
}

#[test]
fn what_is_detached_counts_no_more_and_what_is_adopted_does() {
    let depot = depot::<Growing>(8 * KB);
    let block = depot.try_take(8 * KB, 0).expect("fits");
    depot.detach(block.bytes);
    assert_eq!(depot.stats(0, 0).lent, 0);
    let other = depot.try_take(4 * KB, 0).expect("fits");
    assert!(!depot.adopt(block.bytes, 0), "there is no room");
    depot.give(other, 0);
    assert!(depot.adopt(block.bytes, 0), "the free list makes room");
    depot.give(block, 0);
    assert_eq!((depot.stats(0, 0).lent, depot.stats(0, 0).retained), (0, 8 * KB));
}

#[test]
fn blocks_move_by_the_dozen_as_they_do_one_by_one() {
    let depot = depot::<Growing>(100 * KB);
    let blocks: Vec<Block> = (0..6).map(|_| depot.try_take(KB, 0).expect("fits")).collect();
    depot.give_all(blocks, 1);
    assert_eq!((depot.stats(0, 0).lent, depot.stats(0, 0).retained), (0, 6 * KB));
    let mut taken = Vec::new();
    depot.take_retained(KB, 0, 4, |block| taken.push(block));
    assert_eq!((taken.len(), depot.stats(0, 0).lent, depot.stats(0, 0).hits), (4, 4 * KB, 1));
    depot.take_retained(KB, 0, 4, |block| taken.push(block));
    depot.take_retained(KB, 0, 4, |_| panic!("there is none left"));
    assert_eq!(taken.len(), 6);
    let fixed = self::depot::<Fixed<1>>(100 * KB);
    let blocks: Vec<Block> = (0..3).map(|_| fixed.try_take(KB, 0).expect("fits")).collect();
    fixed.give_all(blocks, 0);
    assert_eq!(fixed.provider().live.load(Ordering::Relaxed), KB, "what finds no place is freed");
}

#[test]
fn a_fixed_depot_never_grows() {
    let depot = depot::<Fixed<1>>(100 * KB);
    let blocks: Vec<Block> = (0..3).map(|_| depot.try_take(KB, 0).expect("fits")).collect();
    blocks.into_iter().for_each(|block| depot.give(block, 0));
    assert_eq!((depot.stats(0, 0).retained, depot.provider().live.load(Ordering::Relaxed)), (KB, KB));
    let all = depot.try_take(100 * KB, 0).expect("fits");
    let (mut first, _, polled) = waiting(&depot, KB);
    assert!(polled.is_pending());
    let (second, _, polled) = waiting(&depot, KB);
    assert!(matches!(polled, Poll::Ready(Err(TakeError::QueueFull))) && !second.is_waiting());
    depot.cancel(&mut first);
    depot.give(all, 0);
}

/// The actions of a random borrower.
#[derive(Debug, Clone)]
enum Step {
    Take(usize, usize),
    Give(usize, usize),
    Release(usize),
    Wait(usize),
    Poll(usize),
    Cancel(usize),
    Trim,
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = || prop_oneof![1..4 * KB, 4 * KB..70 * KB];
    prop_oneof![
        4 => (bytes(), 0..4_usize).prop_map(|(bytes, affinity)| Step::Take(bytes, affinity)),
        4 => (0..8_usize, 0..4_usize).prop_map(|(which, affinity)| Step::Give(which, affinity)),
        1 => (0..8_usize).prop_map(Step::Release),
        2 => bytes().prop_map(Step::Wait),
        2 => (0..8_usize).prop_map(Step::Poll),
        1 => (0..8_usize).prop_map(Step::Cancel),
        1 => Just(Step::Trim),
    ]
}

struct Waiting {
    bytes: usize,
    turn: Turn,
    flag: Arc<Flag>,
}

fn behaves<S: Containers>(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let depot = depot::<S>(64 * KB);
    let mut lent: Vec<Block> = Vec::new();
    let mut queue: Vec<Box<Waiting>> = Vec::new();
    // Polls a waiter. Only the first may be served.
    let poll = |queue: &mut Vec<Box<Waiting>>, which: usize, lent: &mut Vec<Block>| {
        let waiting = &mut queue[which];
        let waker = Waker::from(Arc::clone(&waiting.flag));
        match depot.poll_take(waiting.bytes, 0, &mut waiting.turn, &waker) {
            Poll::Pending => {}
            Poll::Ready(result) => {
                assert_eq!(which, 0, "served out of order");
                lent.push(result.expect("it fits and the provider gives"));
                queue.remove(which);
            }
        }
    };
    for step in steps {
        match step {
            Step::Take(bytes, affinity) => match depot.try_take(bytes, affinity) {
                Ok(block) => {
                    prop_assert!(block.bytes >= bytes && queue.is_empty());
                    lent.push(block);
                }
                Err(TakeError::TooLarge) => prop_assert!(bytes > 64 * KB),
                Err(TakeError::Exhausted) => {
                    let out: usize = lent.iter().map(|block| block.bytes).sum();
                    prop_assert!(!queue.is_empty() || out + bytes + bytes / 4 + KB > 64 * KB);
                }
                Err(error) => prop_assert!(false, "{:?}", error),
            },
            Step::Give(which, affinity) if which < lent.len() => depot.give(lent.swap_remove(which), affinity),
            Step::Release(which) if which < lent.len() => depot.release(lent.swap_remove(which)),
            Step::Wait(bytes) if bytes <= 64 * KB => {
                let (turn, flag, polled) = waiting(&depot, bytes);
                match polled {
                    Poll::Pending => queue.push(Box::new(Waiting { bytes, turn, flag })),
                    Poll::Ready(Ok(block)) => {
                        prop_assert!(queue.is_empty(), "overtook");
                        lent.push(block);
                    }
                    Poll::Ready(Err(error)) => prop_assert_eq!(error, TakeError::QueueFull),
                }
            }
            Step::Poll(which) if which < queue.len() => poll(&mut queue, which, &mut lent),
            Step::Cancel(which) if which < queue.len() => depot.cancel(&mut queue.remove(which).turn),
            Step::Trim => {
                depot.trim();
                prop_assert_eq!(depot.stats(0, 0).retained, 0);
            }
            _ => {}
        }
        let stats = depot.stats(0, 0);
        prop_assert_eq!(stats.lent, lent.iter().map(|block| block.bytes).sum::<usize>());
        prop_assert_eq!(stats.lent + stats.retained, depot.provider().live.load(Ordering::Relaxed));
        prop_assert!(stats.lent + stats.retained <= stats.limit);
        prop_assert_eq!(depot.has_waiters(), !queue.is_empty());
    }
    // All waiters are woken in turn once everything is returned, so no wake-up is lost.
    while !queue.is_empty() {
        lent.drain(..).for_each(|block| depot.give(block, 0));
        prop_assert!(woken(&queue[0].flag), "the first waiter sleeps although memory is free");
        poll(&mut queue, 0, &mut lent);
        prop_assert_eq!(lent.len(), 1);
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_sequence_keeps_the_limit_and_the_order(steps in proptest::collection::vec(step(), 0..80)) {
        behaves::<Growing>(steps.clone())?;
        behaves::<Fixed<3>>(steps)?;
    }
}

/// Holds a block and returns it when dropped, like the waker of a task that owns memory.
struct Owner {
    depot: Arc<Depot<Counted, (), Growing, 2>>,
    block: Mutex<Option<Block>>,
}

impl Wake for Owner {
    fn wake(self: Arc<Self>) {}
}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Some(block) = self.block.with(Option::take) {
            self.depot.give(block, 0);
        }
    }
}

#[test]
fn a_waker_that_owns_memory_may_go_at_any_time() {
    let depot = Arc::new(depot::<Growing>(8 * KB));
    let owner = || {
        let block = Mutex::new(depot.try_take(8 * KB, 0).ok());
        Waker::from(Arc::new(Owner { depot: Arc::clone(&depot), block }))
    };
    // Another waker replaces it, and its memory serves the waiter.
    let mut turn = Turn::new();
    assert!(depot.poll_take(KB, 0, &mut turn, &owner()).is_pending());
    assert!(depot.poll_take(KB, 0, &mut turn, Waker::noop()).is_pending(), "the old one goes after the look");
    let block = depot.poll_take(KB, 0, &mut turn, Waker::noop());
    let Poll::Ready(Ok(block)) = block else { panic!("the memory is back") };
    depot.give(block, 0);
    // Dropped with its turn, and when the queue is full.
    let mut turn = Turn::new();
    assert!(depot.poll_take(8 * KB, 0, &mut turn, &owner()).is_pending());
    depot.cancel(&mut turn);
    assert_eq!(depot.stats(0, 0).lent, 0);
}

#[test]
fn a_provider_that_panics_keeps_nothing_reserved() {
    struct Panics(AtomicBool);
    impl Provider for Panics {
        type Block = ();
        type Error = ();
        fn allocate(&self, _: usize) -> Result<(), ()> {
            assert!(self.0.swap(true, Ordering::Relaxed), "on purpose");
            Ok(())
        }
        fn byte_len(&self, (): &()) -> usize {
            KB
        }
    }
    extern crate std;
    let depot = Depot::<_, (), Growing, 2>::new(Panics(AtomicBool::new(false)), (), KB);
    let take = std::panic::AssertUnwindSafe(|| depot.try_take(KB, 0));
    assert!(std::panic::catch_unwind(take).is_err());
    assert!(depot.try_take(KB, 0).is_ok(), "the limit is free again");
}
