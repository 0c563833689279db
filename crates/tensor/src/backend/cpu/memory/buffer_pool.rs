//! Free list of buffers, one per thread.
//!
//! A training step allocates the same few hundred sizes each time; fresh pages from the operating system would cost more
//! than the arithmetic on small matrices.

use super::cache_line::CacheLine;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// Free buffers by size in lines.
#[derive(Default)]
struct BufferPool {
    free_buffers: BTreeMap<usize, Vec<Vec<CacheLine>>>,
    pooled_lines: usize,
}

/// Upper bound of the lines that a thread's pool keeps: 64 MiB.
const MAX_POOLED_LINES: usize = 1 << 20;

thread_local! {
    static BUFFER_POOL: RefCell<BufferPool> = RefCell::default();
}

/// Returns a buffer of at least `lines` lines. A reused buffer still holds its previous values.
pub fn acquire(lines: usize) -> Vec<CacheLine> {
    let lines = size_class(lines);
    let pooled = BUFFER_POOL.try_with(|pool| pool.borrow_mut().acquire(lines)).ok().flatten();
    pooled.unwrap_or_else(|| vec![CacheLine::ZERO; lines])
}

/// Returns a buffer to this thread's pool, or frees it if the pool is full.
pub fn release(buffer: Vec<CacheLine>) {
    // The thread-local pool is already destroyed while its thread exits: then the buffer is freed.
    let _ = BUFFER_POOL.try_with(|pool| pool.borrow_mut().release(buffer));
}

/// Rounds up in steps of an eighth, so that micro-batches of nearly the same size share their buffers.
fn size_class(lines: usize) -> usize {
    let step = (lines.next_power_of_two() / 16).max(1);
    lines.next_multiple_of(step)
}

impl BufferPool {
    fn acquire(&mut self, lines: usize) -> Option<Vec<CacheLine>> {
        // Up to a quarter too large is accepted.
        let buffer = self.free_buffers.range_mut(lines..=lines + lines / 4).find_map(|(_, buffers)| buffers.pop())?;
        self.pooled_lines -= buffer.len();
        Some(buffer)
    }

    fn release(&mut self, buffer: Vec<CacheLine>) {
        if buffer.is_empty() || self.pooled_lines + buffer.len() > MAX_POOLED_LINES {
            return;
        }
        self.pooled_lines += buffer.len();
        self.free_buffers.entry(buffer.len()).or_default().push(buffer);
    }
}
