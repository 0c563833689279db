//! Memory that the C library's allocator keeps.

/// Blocks of at least this size are mapped from the operating system one by one, and returned to it when they are freed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MMAP_THRESHOLD_BYTES: i32 = 1 << 20;

/// Free memory at the end of the heap that is returned.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const TRIM_THRESHOLD_BYTES: i32 = 16 << 20;

/// Fixes glibc's mmap threshold. By default glibc raises it to the size of freed blocks, up to 32 MiB, and then allocates matrices in the
/// heap of each thread, which keeps their memory after they are freed.
///
/// Call this before the first large allocation.
pub fn configure_allocator() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (parameter, value) in
        [(libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES), (libc::M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)]
    {
        // SAFETY: `mallopt` takes plain numbers and is thread-safe.
        #[allow(unsafe_code, reason = "no safe wrapper sets parameters of the allocator")]
        unsafe {
            libc::mallopt(parameter, value);
        }
    }
}

/// Returns free memory to the operating system. glibc keeps the memory of exited threads.
///
/// Call this on a thread of normal priority. The call locks one arena of the allocator after another, and a thread of low priority
/// would hold such a lock for long while serving threads wait for it (priority inversion).
pub fn trim_allocator() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `malloc_trim` takes a plain number, is thread-safe, and frees only memory that no allocation uses.
    #[allow(unsafe_code, reason = "no safe wrapper trims the allocator's arenas")]
    unsafe {
        libc::malloc_trim(0);
    }
}
