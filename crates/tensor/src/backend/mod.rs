//! The seam between the tape and the devices: trait [`Backend`] and its types name no implementation.
//!
//! [`cpu`] is hand-written SIMD. [`candle`] runs on NVIDIA GPUs and is the oracle of the tests.

mod args;
pub mod candle;
pub mod cpu;
mod dora;
mod frozen;
mod handles;
mod ops;

pub use args::{
    Activation, AttentionInput, AttentionSaved, CachedSequence, CrossEntropyOutput, DecodeAttentionInput,
    DenseGradients, Direction, KV_BLOCK_ROWS, KvCacheShape, LoraArgs, LoraGradients, NormSaved, PoolingKind,
    PrependedRows, RotaryTable, SaveForBackward,
};
pub use dora::weight_row_norms;
pub use frozen::{FrozenEmbedding, FrozenLinear, FrozenNorm, NormKind};
pub use handles::{Buffer, DeviceBuffer, KvBlock, Parameter};
pub use ops::{Backend, ChannelOps, GluOps, KvCacheOps, LoraOps, RotaryOps, WeightOps};

impl dyn Backend {
    /// Runs `work` with the products of the calling thread split over this many threads.
    pub fn with_intra_op_threads<T>(&self, threads: usize, work: impl FnOnce() -> T) -> T {
        let (mut work, mut output) = (Some(work), None);
        self.run_with_intra_op_threads(threads, &mut || output = work.take().map(|work| work()));
        output.expect("a backend runs the task exactly once")
    }
}
