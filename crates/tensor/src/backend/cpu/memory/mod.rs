//! Memory of matrices: a pool of reusable buffers per thread, and an arena of huge pages for frozen weights.

pub mod buffer_pool;
pub mod cache_line;
pub mod huge_page_arena;
