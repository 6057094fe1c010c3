//! Every interleaving of the arena's hand-out, by loom: `RUSTFLAGS="--cfg loom" cargo test -p floodtide-tests --test loom`.
#![cfg(loom)]

use floodtide_linux::handout::Handout;
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

/// Two pieces of memory with the hand-out that guards them, as in the arena; loom reports any access that races.
struct Guarded {
    handout: Handout,
    pieces: [UnsafeCell<u8>; 2],
}

impl Guarded {
    fn new() -> Arc<Self> {
        Arc::new(Self { handout: Handout::new(2), pieces: [UnsafeCell::new(0), UnsafeCell::new(0)] })
    }

    /// What a worker does: take a piece, fill it, give it back.
    fn fill(&self, piece: usize) -> bool {
        let lent = self.handout.lend(piece);
        if lent {
            // SAFETY: the hand-out lends a piece once, and nothing is frozen while it is out: what this test checks.
            self.pieces[piece].with_mut(|byte| unsafe { *byte += 1 });
            self.handout.give_back();
        }
        lent
    }

    /// What the load's end does: freeze, then read all.
    fn read_if_frozen(&self) -> Option<u8> {
        // SAFETY: frozen means that no piece is out and none will be: what this test checks.
        self.handout.freeze().then(|| self.pieces.iter().map(|piece| piece.with(|byte| unsafe { *byte })).sum())
    }
}

#[test]
fn a_piece_is_lent_to_one_of_two_workers() {
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
            .map(|piece| {
                let guarded = Arc::clone(&guarded);
                thread::spawn(move || guarded.fill(piece))
            })
            .collect();
        // Races with both workers: whatever it sees is whole pieces.
        let early = guarded.read_if_frozen();
        let filled: u8 = workers.into_iter().map(|worker| u8::from(worker.join().unwrap())).sum();
        match early {
            Some(sum) => assert_eq!(sum, filled, "a frozen arena never changes"),
            None => assert_eq!(guarded.read_if_frozen(), Some(filled)),
        }
        assert!(!guarded.fill(0), "nothing is lent after the freeze");
    });
}
