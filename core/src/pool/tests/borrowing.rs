//! What a borrower may count on: whose free list it finds, what is counted, and when it waits.

use super::*;
use alloc::rc::Rc;
use core::cell::RefCell;

fn retained<S: Containers>(depot: &Depot<Counted, (), S, 2>, affinity: usize) -> Vec<Block> {
    let mut taken = Vec::new();
    depot.take_retained(KB, affinity, 9, |block| taken.push(block));
    taken
}

#[test]
fn who_comes_back_finds_what_it_gave() {
    let depot = depot::<Growing>(100 * KB);
    let mut blocks = (0..6).map(|_| depot.try_take(KB, 0).expect("fits")).collect::<Vec<Block>>().into_iter();
    let mut next = || blocks.next().expect("there are six");
    depot.give(next(), 0);
    depot.give_all([next(), next()], 1);
    assert_eq!([retained(&depot, 1).len(), retained(&depot, 0).len()], [2, 1]);
    depot.give_all([next(), next()], 0);
    depot.give(next(), 1);
    assert_eq!([retained(&depot, 0).len(), retained(&depot, 1).len()], [2, 1]);
}

#[test]
fn room_is_made_from_the_own_free_list_first() {
    let depot = depot::<Growing>(8 * KB);
    let small: Vec<Block> = (0..4).map(|_| depot.try_take(KB, 0).expect("fits")).collect();
    let large = depot.try_take(4 * KB, 1).expect("fits");
    depot.give_all(small, 0);
    depot.give(large, 1);
    let block = depot.try_take(2 * KB, 0).expect("two small ones make room");
    assert_eq!((block.bytes, depot.stats(0, 0).retained), (2 * KB, 6 * KB));
}

#[test]
fn the_upper_tier_counts_with_the_free_lists() {
    let depot = depot::<Growing>(8 * KB);
    let (first, second) = (depot.try_take(KB, 0).expect("fits"), depot.try_take(2 * KB, 1).expect("fits"));
    depot.give(first, 0);
    drop(depot.try_take(KB, 0));
    let expected = Stats { limit: 8 * KB, lent: KB, retained: 2 * KB, hits: 6, misses: 2, waits: 0 };
    assert_eq!(depot.stats(second.bytes, 5), expected);
    assert!(alloc::format!("{depot:?}").contains("misses: 2"));
}

#[test]
fn a_limit_holds_the_smallest_block_at_least() {
    assert_eq!([depot::<Growing>(0).limit(), depot::<Growing>(5 * KB).limit()], [KB, 5 * KB]);
    assert!(depot::<Growing>(0).try_take(1, 0).is_ok());
}

#[test]
fn only_what_fits_is_adopted() {
    let depot: Depot<Counted, Cache, Growing, 2> = Depot::new(Counted::default(), Cache::default(), 8 * KB);
    let cached = depot.try_take(4 * KB, 0).expect("fits");
    depot.tier().kept.with(|kept| kept.push(cached));
    assert!(!depot.adopt(9 * KB, 0), "it is more than the limit");
    assert!(depot.adopt(4 * KB, 0) && depot.tier().kept.with(|kept| kept.len() == 1), "there was room");
    assert!(depot.adopt(KB, 0), "the upper tier makes room");
    assert_eq!(depot.stats(0, 0).lent, 5 * KB);
    let (mut turn, _, polled) = waiting(&depot, 8 * KB);
    assert!(polled.is_pending() && !depot.adopt(KB, 0), "others wait");
    depot.cancel(&mut turn);
    assert!(depot.adopt(KB, 0));
}

#[test]
fn a_provider_that_refuses_is_asked_again_only_when_something_was_freed() {
    struct Refuses(AtomicUsize);
    impl Provider for Refuses {
        type Block = ();
        type Error = usize;
        fn allocate(&self, _: usize) -> Result<(), usize> {
            Err(self.0.fetch_add(1, Ordering::Relaxed))
        }
        fn byte_len(&self, (): &()) -> usize {
            KB
        }
    }
    let depot = Depot::<_, (), Growing, 2>::new(Refuses(AtomicUsize::new(0)), (), 8 * KB);
    assert_eq!(depot.try_take(KB, 0), Err(TakeError::Provider(0)));
    assert_eq!(depot.try_take(KB, 0), Err(TakeError::Provider(1)), "nothing was there to be freed");
}

#[test]
fn who_finds_memory_does_not_wait() {
    let depot: Depot<Counted, Cache, Growing, 2> = Depot::new(Counted::default(), Cache::default(), 8 * KB);
    let cached = depot.try_take(KB, 0).expect("fits");
    depot.tier().kept.with(|kept| kept.push(cached));
    let (turn, _, polled) = waiting(&depot, KB);
    assert!(matches!(polled, Poll::Ready(Ok(_))) && !turn.is_waiting());
    assert_eq!(depot.stats(0, 0).waits, 0);
    assert_eq!(depot.tier().kept.with(|kept| kept.len()), 1, "nothing is asked back for it");
}

type Meanwhile = Rc<RefCell<Option<Box<dyn FnOnce()>>>>;

/// Memory that lets another borrower act while it is freed.
struct Slow(Meanwhile);

struct SlowBlock {
    bytes: usize,
    meanwhile: Meanwhile,
}

impl Drop for SlowBlock {
    fn drop(&mut self) {
        let meanwhile = self.meanwhile.borrow_mut().take();
        meanwhile.into_iter().for_each(|happens| happens());
    }
}

impl Provider for Slow {
    type Block = SlowBlock;
    type Error = ();

    fn allocate(&self, bytes: usize) -> Result<SlowBlock, ()> {
        Ok(SlowBlock { bytes, meanwhile: Rc::clone(&self.0) })
    }

    fn byte_len(&self, block: &SlowBlock) -> usize {
        block.bytes
    }
}

#[test]
fn who_comes_while_room_is_made_for_another_is_woken_for_the_rest() {
    let meanwhile = Meanwhile::default();
    let depot = Rc::new(Depot::<_, (), Growing, 2>::new(Slow(Rc::clone(&meanwhile)), (), 8 * KB));
    let whole = depot.try_take(8 * KB, 0).expect("fits");
    depot.give(whole, 0);
    let (flag, turn) = (Arc::new(Flag::default()), Rc::new(RefCell::new(Turn::new())));
    let waker = Waker::from(Arc::clone(&flag));
    let comes = (Rc::clone(&depot), Rc::clone(&turn), waker.clone());
    *meanwhile.borrow_mut() = Some(Box::new(move || {
        let (depot, turn, waker) = comes;
        assert!(depot.poll_take(4 * KB, 0, &mut turn.borrow_mut(), &waker).is_pending(), "all still counts");
    }));
    let small = depot.try_take(KB, 0).expect("the whole one makes room");
    assert!(woken(&flag), "seven kilobytes are left");
    assert!(matches!(depot.poll_take(4 * KB, 0, &mut turn.borrow_mut(), &waker), Poll::Ready(Ok(_))));
    depot.give(small, 0);
}
