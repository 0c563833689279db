//! Memory of matrices: a pool of reusable buffers per thread, and an arena of huge pages for frozen weights.
//!
//! A training step allocates the same few hundred sizes each time; fresh pages from the operating system would cost more
//! than the arithmetic on small matrices.
//!
//! A forward pass of a short text reads every weight once. With 4 KiB pages each page would stall: hardware prefetching
//! stops at page boundaries, and the page table exceeds the TLB.

use crate::backend::cpu::simd::LANES;
use crate::backend::cpu::threads::par_for_each_chunk;
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

/// Free buffers of a thread.
#[derive(Default)]
struct BufferPool {
    /// By size in lines.
    free_buffers: BTreeMap<usize, FreeBuffers>,
    pooled_lines: usize,
    /// Number of calls so far.
    calls: u64,
}

/// Free buffers of one size.
#[derive(Default)]
struct FreeBuffers {
    buffers: Vec<Vec<CacheLine>>,
    /// Call that used the size last.
    last_used: u64,
}

/// Upper bound of the lines that a thread's pool keeps: 128 MiB, about the buffers of a batch of 4,096 tokens.
const MAX_POOLED_LINES: usize = 2 << 20;

thread_local! {
    static BUFFER_POOL: RefCell<BufferPool> = RefCell::default();
}

/// Returns a buffer of at least `lines` lines. A reused buffer still holds its previous values.
pub fn acquire(lines: usize) -> Vec<CacheLine> {
    let lines = size_class(lines);
    let pooled = BUFFER_POOL.try_with(|pool| pool.borrow_mut().acquire(lines)).ok().flatten();
    pooled.unwrap_or_else(|| vec![CacheLine::ZERO; lines])
}

/// Returns a buffer to this thread's pool, which frees others if it is full.
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
        self.calls += 1;
        // Up to twice the size is accepted.
        let buffer = self.free_buffers.range_mut(lines..=2 * lines).find_map(|(_, free)| {
            free.last_used = self.calls;
            free.buffers.pop()
        })?;
        self.pooled_lines -= buffer.len();
        Some(buffer)
    }

    fn release(&mut self, buffer: Vec<CacheLine>) {
        if buffer.is_empty() || buffer.len() > MAX_POOLED_LINES {
            return;
        }
        self.calls += 1;
        while self.pooled_lines + buffer.len() > MAX_POOLED_LINES {
            self.evict_least_recently_used();
        }
        self.pooled_lines += buffer.len();
        let free = self.free_buffers.entry(buffer.len()).or_default();
        free.last_used = self.calls;
        free.buffers.push(buffer);
    }

    /// Frees the buffers of the size that was used least recently.
    fn evict_least_recently_used(&mut self) {
        let Some((size, _)) = self.free_buffers.iter().min_by_key(|(_, free)| free.last_used) else { return };
        let size = *size;
        let evicted = self.free_buffers.remove(&size).unwrap_or_default();
        self.pooled_lines -= size * evicted.buffers.len();
    }
}

/// One cache line of values.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(64))]
pub struct CacheLine(pub [f32; LANES]);

impl CacheLine {
    pub const ZERO: Self = Self([0.0; LANES]);
}

/// Size of a huge page on x86-64 and most ARM machines.
/// Miri touches every byte a thousand times slower.
const HUGE_PAGE_BYTES: usize = if cfg!(miri) { 4096 } else { 2 << 20 };
/// Bytes allocated from the operating system at once.
const CHUNK_BYTES: usize = 8 * HUGE_PAGE_BYTES;

/// Contiguous huge pages, freed with the last slice of them.
#[derive(Debug)]
struct ArenaChunk {
    base: NonNull<CacheLine>,
    layout: Layout,
}

// SAFETY: a chunk is plain memory without thread affinity; its slices never overlap, and each has one owner.
unsafe impl Send for ArenaChunk {}
// SAFETY: shared access only reads through slices that do not overlap; writing needs `&mut ArenaSlice`.
unsafe impl Sync for ArenaChunk {}

/// Lines of a chunk, owned exclusively.
#[derive(Debug)]
pub struct ArenaSlice {
    chunk: Arc<ArenaChunk>,
    first_line: usize,
    line_count: usize,
}

/// Chunk with free lines, and the number of its lines that are taken.
static CURRENT_CHUNK: Mutex<Option<(Arc<ArenaChunk>, usize)>> = Mutex::new(None);

impl ArenaChunk {
    fn new(bytes: usize) -> Arc<Self> {
        let bytes = bytes.max(CHUNK_BYTES).next_multiple_of(HUGE_PAGE_BYTES);
        let layout = Layout::from_size_align(bytes, HUGE_PAGE_BYTES)
            .expect("the size fits into memory and the alignment is a power of two");
        // SAFETY: the layout's size is at least `CHUNK_BYTES`, so it is not zero.
        let base = unsafe { alloc(layout) };
        let Some(start) = NonNull::new(base.cast::<CacheLine>()) else { handle_alloc_error(layout) };
        advise_huge_pages(start.as_ptr(), bytes);
        Arc::new(Self { base: start, layout })
    }

    fn lines(&self) -> usize {
        self.layout.size() / size_of::<CacheLine>()
    }
}

impl Drop for ArenaChunk {
    fn drop(&mut self) {
        // SAFETY: `base` was allocated with this layout, and dropping the last `Arc` means that no slice is left.
        unsafe { dealloc(self.base.as_ptr().cast(), self.layout) }
    }
}

// Miri has no `madvise`.
#[cfg(all(target_os = "linux", not(miri)))]
fn advise_huge_pages(base: *mut CacheLine, bytes: usize) {
    // SAFETY: the range was just allocated and is owned here, and the advice does not change its contents. If it fails,
    // pages stay small.
    unsafe { libc::madvise(base.cast(), bytes, libc::MADV_HUGEPAGE) };
}

#[cfg(not(all(target_os = "linux", not(miri))))]
fn advise_huge_pages(_: *mut CacheLine, _: usize) {}

impl ArenaSlice {
    /// Allocates zeroed lines.
    pub fn zeros(lines: usize) -> Self {
        let mut current = CURRENT_CHUNK.lock().unwrap_or_else(PoisonError::into_inner);
        let (chunk, first_line) = match current.take() {
            Some((chunk, used_lines)) if used_lines + lines <= chunk.lines() => (chunk, used_lines),
            _ => (ArenaChunk::new(lines * size_of::<CacheLine>()), 0),
        };
        *current = Some((Arc::clone(&chunk), first_line + lines));
        drop(current);
        // SAFETY: the lines lie within the chunk, and no other slice has them: the lock on `CURRENT_CHUNK` was held while they were taken.
        let uninit = unsafe {
            std::slice::from_raw_parts_mut(chunk.base.as_ptr().add(first_line).cast::<MaybeUninit<CacheLine>>(), lines)
        };
        // Most of the time is the operating system's, which clears each new page.
        par_for_each_chunk(uninit, HUGE_PAGE_BYTES / size_of::<CacheLine>(), |_, lines| {
            lines.fill(MaybeUninit::new(CacheLine::ZERO));
        });
        Self { chunk, first_line, line_count: lines }
    }

    pub fn lines(&self) -> &[CacheLine] {
        // SAFETY: the lines lie within the chunk, were zeroed at allocation, and are written only through `lines_mut`,
        // which borrows this slice exclusively.
        unsafe { std::slice::from_raw_parts(self.chunk.base.as_ptr().add(self.first_line), self.line_count) }
    }

    pub fn lines_mut(&mut self) -> &mut [CacheLine] {
        // SAFETY: the lines lie within the chunk and were zeroed at allocation; `&mut self` is the only access to them,
        // because slices do not overlap.
        unsafe { std::slice::from_raw_parts_mut(self.chunk.base.as_ptr().add(self.first_line), self.line_count) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_pool_frees_the_buffers_of_the_size_used_least_recently() {
        let mut pool = BufferPool::default();
        let (large, small) = (MAX_POOLED_LINES / 2, MAX_POOLED_LINES / 4);
        let buffer = |lines| vec![CacheLine::ZERO; lines];
        pool.release(buffer(large));
        pool.release(buffer(small));
        pool.release(buffer(small));
        assert_eq!(pool.pooled_lines, MAX_POOLED_LINES);
        let reused = pool.acquire(large).unwrap();
        pool.release(reused);
        pool.release(buffer(small / 2));
        assert_eq!(pool.pooled_lines, large + small / 2, "both small buffers are freed");
        assert!(!pool.free_buffers.contains_key(&small));
        assert!(pool.acquire(small - 1).is_none(), "the large buffer has more than twice the size");
        pool.release(buffer(MAX_POOLED_LINES + 1));
        assert_eq!(pool.pooled_lines, large + small / 2, "a buffer larger than the pool is not kept");
    }

    #[test]
    fn slices_do_not_overlap_and_outlive_each_other() {
        let lines = CHUNK_BYTES / size_of::<CacheLine>() / 3;
        let mut slices: Vec<ArenaSlice> = (0..7).map(|_| ArenaSlice::zeros(lines)).collect();
        for (index, slice) in slices.iter_mut().enumerate() {
            assert!(slice.lines().iter().all(|line| *line == CacheLine::ZERO));
            slice.lines_mut().fill(CacheLine([index as f32; 16]));
        }
        slices.remove(0);
        let large = ArenaSlice::zeros(2 * CHUNK_BYTES / size_of::<CacheLine>());
        assert!(large.lines().iter().all(|line| *line == CacheLine::ZERO));
        for (index, slice) in slices.iter().enumerate() {
            assert!(slice.lines().iter().all(|line| *line == CacheLine([index as f32 + 1.0; 16])));
            assert!(slice.lines().as_ptr().is_aligned());
        }
    }
}
