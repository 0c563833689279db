//! `POST /predict`: preprocessing, queue, dynamic batches and postprocessing.

pub mod batch;
pub mod metrics;
pub mod preprocess;
pub mod queue;
mod request_queue;
mod throughput;
