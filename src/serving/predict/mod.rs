//! `POST /predict`: preprocessing, the request queue, dynamic batches and postprocessing.

pub mod batch;
mod pending_response;
pub mod postprocess;
pub mod preprocess;
pub mod queue;
