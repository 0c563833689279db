//! Parses the command line and runs the command.

use std::process::ExitCode;

fn main() -> ExitCode {
    espalier_tensor::allocator::configure_allocator();
    keep_candle_single_threaded();
    espalier::cli::main()
}

/// Limits candle to one thread per operation. By default it splits operations over a spinning pool of the whole process,
/// where training would delay serving; compute threads are the service's own. candle reads the variables on its first
/// operation.
fn keep_candle_single_threaded() {
    for name in ["CANDLE_NUM_THREADS", "RAYON_NUM_THREADS"] {
        // SAFETY: `set_var` races only with other threads that read the environment, and main has started none yet.
        #[allow(unsafe_code, reason = "candle has no other setting")]
        unsafe {
            std::env::set_var(name, "1");
        }
    }
}
