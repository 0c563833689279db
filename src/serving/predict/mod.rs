//! `POST /predict`: preprocessing, queue, dynamic batches and postprocessing.

pub mod batch;
pub mod lane;
pub mod metrics;
mod owner_queue;
pub mod preprocess;
pub mod queue;
mod request_queue;
pub mod state;
mod throughput;
