//! Memory for what stays as long as the base: frozen weights, side by side in large pages.
//!
//! A forward pass of a short text reads every weight once. In pages of 4 KiB it would wait for each of them: the
//! processor does not read ahead across a page's end, and the table of pages does not fit where it is looked up.

use super::cache_line::CacheLine;
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

/// A large page of x86-64 and of most ARM machines.
const HUGE_PAGE_BYTES: usize = 2 << 20;
/// What is taken from the operating system at once.
const CHUNK_BYTES: usize = 16 << 20;

/// Neighbouring large pages, freed when the last part of them is.
#[derive(Debug)]
struct ArenaChunk {
    base: NonNull<CacheLine>,
    layout: Layout,
}

// SAFETY: a chunk is plain memory; its parts do not overlap, and each is its owner's alone.
unsafe impl Send for ArenaChunk {}
// SAFETY: as above.
unsafe impl Sync for ArenaChunk {}

/// Some lines of a chunk.
#[derive(Debug)]
pub struct ArenaSlice {
    chunk: Arc<ArenaChunk>,
    first_line: usize,
    line_count: usize,
}

/// The chunk that has room, and how many of its lines are taken.
static CURRENT_CHUNK: Mutex<Option<(Arc<ArenaChunk>, usize)>> = Mutex::new(None);

impl ArenaChunk {
    fn new(bytes: usize) -> Arc<Self> {
        let bytes = bytes.max(CHUNK_BYTES).next_multiple_of(HUGE_PAGE_BYTES);
        let layout = Layout::from_size_align(bytes, HUGE_PAGE_BYTES).expect("a size in memory, and a power of two");
        // SAFETY: the layout is not empty.
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
        // SAFETY: it was allocated with this layout, and no part is left.
        unsafe { dealloc(self.base.as_ptr().cast(), self.layout) }
    }
}

#[cfg(target_os = "linux")]
fn advise_huge_pages(base: *mut CacheLine, bytes: usize) {
    // SAFETY: the range is ours, and the advice changes no content. Where it is not taken, pages are small.
    unsafe { libc::madvise(base.cast(), bytes, libc::MADV_HUGEPAGE) };
}

#[cfg(not(target_os = "linux"))]
fn ask_for_large_pages(_: *mut CacheLine, _: usize) {}

impl ArenaSlice {
    /// All zero.
    pub fn zeros(lines: usize) -> Self {
        let mut current = CURRENT_CHUNK.lock().unwrap_or_else(PoisonError::into_inner);
        let (chunk, first_line) = match current.take() {
            Some((chunk, used_lines)) if used_lines + lines <= chunk.lines() => (chunk, used_lines),
            _ => (ArenaChunk::new(lines * size_of::<CacheLine>()), 0),
        };
        *current = Some((Arc::clone(&chunk), first_line + lines));
        // SAFETY: these lines lie within the chunk and were never given to anybody else; zeros are numbers.
        unsafe { chunk.base.as_ptr().add(first_line).write_bytes(0, lines) };
        Self { chunk, first_line, line_count: lines }
    }

    pub fn lines(&self) -> &[CacheLine] {
        // SAFETY: they lie within the chunk, are initialised, and are changed only through `lines_mut`.
        unsafe { std::slice::from_raw_parts(self.chunk.base.as_ptr().add(self.first_line), self.line_count) }
    }

    pub fn lines_mut(&mut self) -> &mut [CacheLine] {
        // SAFETY: as above, and nobody else has this part.
        unsafe { std::slice::from_raw_parts_mut(self.chunk.base.as_ptr().add(self.first_line), self.line_count) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
