//! The operations a device must offer (skeleton).
/// Rows on a device.
#[derive(Debug, Clone)]
pub struct Buffer;
pub trait Kernels: Send + Sync {}
