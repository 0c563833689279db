//! Parses the command line and runs the command.

use std::process::ExitCode;

fn main() -> ExitCode {
    keep_candle_single_threaded();
    espalier::cli::main()
}

/// candle would share its operations out over a spinning pool of the whole process, where training holds up serving.
/// Our threads are our own (`compute::pool`), each computing alone. candle reads these on its first operation.
fn keep_candle_single_threaded() {
    for name in ["CANDLE_NUM_THREADS", "RAYON_NUM_THREADS"] {
        // SAFETY: nothing else runs yet: this is the first thing that main does.
        #[allow(unsafe_code, reason = "candle has no other way to be told")]
        unsafe {
            std::env::set_var(name, "1");
        }
    }
}
