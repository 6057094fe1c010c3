//! Reads on tokio's blocking threads, for callers that live in an async runtime.
//!
//! Linux has no readiness for files, so `pread` on the runtime's blocking pool is what tokio itself does; here the reads
//! are planned, large and placed at once. Dropping the future abandons the load: a read that has started owns its
//! buffer and finishes on its thread.

use super::pread::read;
use crate::files::OpenFile;
use floodtide_core::{BufferSupply, Completion, Disposition, EngineHandle, Error, ReadOp, next_read};
use std::sync::Arc;
use tokio::task::JoinSet;

/// Carries the load out with up to `depth` reads at a time. `tick` is called after every completion.
pub(crate) async fn drive<S: EngineHandle + BufferSupply>(
    shared: &S,
    files: &Arc<[OpenFile]>,
    depth: usize,
    mut tick: impl FnMut(),
) {
    let mut reads = JoinSet::new();
    loop {
        while reads.len() < depth.max(1) {
            let Some((op, buffer)) = next_read(shared, shared) else { break };
            spawn(&mut reads, files, op, buffer);
        }
        match reads.join_next().await {
            Some(Ok(Completion { id, buffer, outcome })) => {
                match shared.with(|engine| engine.complete(id, outcome)) {
                    Disposition::Landed(chunk) => shared.landed(chunk, buffer),
                    Disposition::Resubmit(op) => spawn(&mut reads, files, op, buffer),
                    Disposition::Abandoned => {}
                }
                tick();
            }
            Some(Err(error)) => {
                let message = format!("a reading task of tokio failed: {error}");
                shared.with(|engine| engine.fail(Error::Platform { message }));
            }
            None if shared.with(|engine| engine.is_exhausted()) => return,
            None => shared.wait_for_room(),
        }
    }
}

type Reads<B> = JoinSet<Completion<B>>;

fn spawn<B: floodtide_core::Buffer>(reads: &mut Reads<B>, files: &Arc<[OpenFile]>, op: ReadOp, mut buffer: B) {
    let files = Arc::clone(files);
    reads.spawn_blocking(move || {
        let outcome = read(&files, &op, &mut buffer);
        Completion { id: op.id, buffer, outcome }
    });
}
