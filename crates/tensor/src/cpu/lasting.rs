//! Memory for what stays as long as the base: frozen weights, side by side in large pages.
//!
//! A forward pass of a short text reads every weight once. In pages of 4 KiB it would wait for each of them: the
//! processor does not read ahead across a page's end, and the table of pages does not fit where it is looked up.

use super::memory::Line;
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

/// A large page of x86-64 and of most ARM machines.
const PAGE: usize = 2 << 20;
/// What is taken from the operating system at once.
const CHUNK: usize = 16 << 20;

/// Neighbouring large pages, freed when the last part of them is.
#[derive(Debug)]
struct Chunk {
    start: NonNull<Line>,
    layout: Layout,
}

// SAFETY: a chunk is plain memory; its parts do not overlap, and each is its owner's alone.
unsafe impl Send for Chunk {}
// SAFETY: as above.
unsafe impl Sync for Chunk {}

/// Some lines of a chunk.
#[derive(Debug)]
pub struct Lasting {
    chunk: Arc<Chunk>,
    first: usize,
    lines: usize,
}

/// The chunk that has room, and how many of its lines are taken.
static OPEN: Mutex<Option<(Arc<Chunk>, usize)>> = Mutex::new(None);

impl Chunk {
    fn new(bytes: usize) -> Arc<Self> {
        let bytes = bytes.max(CHUNK).next_multiple_of(PAGE);
        let layout = Layout::from_size_align(bytes, PAGE).expect("a size in memory, and a power of two");
        // SAFETY: the layout is not empty.
        let start = unsafe { alloc(layout) };
        let Some(start) = NonNull::new(start.cast::<Line>()) else { handle_alloc_error(layout) };
        ask_for_large_pages(start.as_ptr(), bytes);
        Arc::new(Self { start, layout })
    }

    fn lines(&self) -> usize {
        self.layout.size() / size_of::<Line>()
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: it was allocated with this layout, and no part is left.
        unsafe { dealloc(self.start.as_ptr().cast(), self.layout) }
    }
}

#[cfg(target_os = "linux")]
fn ask_for_large_pages(start: *mut Line, bytes: usize) {
    // SAFETY: the range is ours, and the advice changes no content. Where it is not taken, pages are small.
    unsafe { libc::madvise(start.cast(), bytes, libc::MADV_HUGEPAGE) };
}

#[cfg(not(target_os = "linux"))]
fn ask_for_large_pages(_: *mut Line, _: usize) {}

impl Lasting {
    /// All zero.
    pub fn zeros(lines: usize) -> Self {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let (chunk, first) = match open.take() {
            Some((chunk, taken)) if taken + lines <= chunk.lines() => (chunk, taken),
            _ => (Chunk::new(lines * size_of::<Line>()), 0),
        };
        *open = Some((Arc::clone(&chunk), first + lines));
        // SAFETY: these lines lie within the chunk and were never given to anybody else; zeros are numbers.
        unsafe { chunk.start.as_ptr().add(first).write_bytes(0, lines) };
        Self { chunk, first, lines }
    }

    pub fn lines(&self) -> &[Line] {
        // SAFETY: they lie within the chunk, are initialised, and are changed only through `lines_mut`.
        unsafe { std::slice::from_raw_parts(self.chunk.start.as_ptr().add(self.first), self.lines) }
    }

    pub fn lines_mut(&mut self) -> &mut [Line] {
        // SAFETY: as above, and nobody else has this part.
        unsafe { std::slice::from_raw_parts_mut(self.chunk.start.as_ptr().add(self.first), self.lines) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_overlap_and_outlive_each_other() {
        let lines = CHUNK / size_of::<Line>() / 3;
        let mut parts: Vec<Lasting> = (0..7).map(|_| Lasting::zeros(lines)).collect();
        for (index, part) in parts.iter_mut().enumerate() {
            assert!(part.lines().iter().all(|line| *line == Line::ZERO));
            part.lines_mut().fill(Line([index as f32; 16]));
        }
        parts.remove(0);
        let large = Lasting::zeros(2 * CHUNK / size_of::<Line>());
        assert!(large.lines().iter().all(|line| *line == Line::ZERO));
        for (index, part) in parts.iter().enumerate() {
            assert!(part.lines().iter().all(|line| *line == Line([index as f32 + 1.0; 16])));
            assert!(part.lines().as_ptr().is_aligned());
        }
    }
}
