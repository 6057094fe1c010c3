//! Reads on tokio's blocking threads, for callers that live in an async runtime.
//!
//! Linux has no readiness for files, so `pread` on the runtime's blocking pool is what tokio itself does; here the reads
//! are planned, large and placed at once. Dropping the future abandons the load: a read that has started owns its
//! buffer and finishes on its thread.

use crate::runtime::{LoadBuffers, LoadTask};
use crate::trace::ReadTrace;
use floodtide_core::{BufferProvider, Completion, Disposition, EngineHandle, Error, ReadOp, land, next_read};
use floodtide_linux::OpenFile;
use floodtide_linux::source::read;
use std::sync::Arc;
use std::time::Instant;
use tokio::task::JoinSet;

type Traced = Option<Box<dyn ReadTrace>>;

/// Carries the load out with up to `depth` reads at a time. `tick` is called after every completion.
pub(crate) async fn drive<S: LoadBuffers>(
    task: &Arc<LoadTask<S>>,
    files: &Arc<[OpenFile]>,
    depth: usize,
    mut trace: Traced,
    mut tick: impl FnMut(),
) {
    let mut reads = JoinSet::new();
    loop {
        while reads.len() < depth.max(1) {
            let Some((op, buffer)) = next_read(&**task, &**task) else { break };
            spawn(&mut reads, files, op, buffer, &mut trace);
        }
        match reads.join_next().await {
            Some(Ok(None)) => tick(),
            Some(Ok(Some((Completion { id, buffer, outcome }, time)))) => {
                if let (Some(trace), Some((began, ended))) = (&mut trace, time) {
                    trace.carried_out(id, began, ended);
                    trace.completed(id, outcome);
                }
                match task.with(|engine| engine.complete(id, outcome)) {
                    Disposition::Landed(chunk) if task.completion_is_slow() => {
                        // This thread has other futures to drive.
                        let task = Arc::clone(task);
                        reads.spawn_blocking(move || {
                            land(&*task, &*task, chunk, buffer);
                            None
                        });
                    }
                    Disposition::Landed(chunk) => land(&**task, &**task, chunk, buffer),
                    Disposition::Resubmit(op) => spawn(&mut reads, files, op, buffer, &mut trace),
                    Disposition::Abandoned => {}
                }
                tick();
            }
            Some(Err(error)) => {
                let message = format!("a reading task of tokio failed: {error}");
                task.with(|engine| engine.fail(Error::Platform { message }));
            }
            None if task.with(|engine| engine.is_exhausted()) => return,
            None => task.wait_for_capacity(),
        }
    }
}

/// Reads, and when they began and ended if that is of interest; `None` is one that landed.
type Reads<B> = JoinSet<Option<(Completion<B>, Option<(Instant, Instant)>)>>;

fn spawn<B: floodtide_core::Buffer>(
    reads: &mut Reads<B>,
    files: &Arc<[OpenFile]>,
    op: ReadOp,
    mut buffer: B,
    trace: &mut Traced,
) {
    let files = Arc::clone(files);
    let timed = trace.is_some();
    if let Some(trace) = trace {
        trace.submitting(&op);
        trace.submitted(&op);
    }
    reads.spawn_blocking(move || {
        let began = timed.then(Instant::now);
        let outcome = read(&files, &op, &mut buffer);
        let time = began.map(|began| (began, Instant::now()));
        Some((Completion { id: op.id, buffer, outcome }, time))
    });
}
