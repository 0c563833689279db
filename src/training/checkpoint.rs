//! Checkpoints (training room).
