//! Opaque handles of the data that a backend keeps on its device. Cloning a handle shares the data.
//!
//! A backend wraps its own types in these handles and downcasts them again; a handle of another backend is a bug of the
//! calling code, so downcasting by the wrong backend panics. Everything above the backends holds handles only.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// A backend's own matrix type, as stored in a [`Buffer`].
pub trait DeviceBuffer: Any + fmt::Debug + Send + Sync {
    fn rows(&self) -> usize;
    fn width(&self) -> usize;

    /// Whether the values take fewer than 32 bits each, with shared scales.
    fn is_quantized(&self) -> bool {
        false
    }
}

/// Matrix `(rows, width)` on a device.
#[derive(Debug, Clone)]
pub struct Buffer(Arc<dyn DeviceBuffer>);

impl Buffer {
    pub fn new(data: impl DeviceBuffer) -> Self {
        Self(Arc::new(data))
    }

    pub fn rows(&self) -> usize {
        self.0.rows()
    }

    pub fn width(&self) -> usize {
        self.0.width()
    }

    pub fn is_quantized(&self) -> bool {
        self.0.is_quantized()
    }

    /// Returns the data if it is a `T`.
    pub fn downcast_ref<T: DeviceBuffer>(&self) -> Option<&T> {
        let data: &dyn Any = self.0.as_ref();
        data.downcast_ref()
    }

    /// Returns the data if it is a `T`: moved out of the last handle, cloned out of a shared one.
    pub fn downcast<T: DeviceBuffer + Clone>(self) -> Option<T> {
        let data: Arc<dyn Any + Send + Sync> = self.0;
        data.downcast::<T>().ok().map(Arc::unwrap_or_clone)
    }
}

/// Trainable tensor on a device, in the layouts that its operations read.
#[derive(Clone)]
pub struct Parameter(Arc<dyn Any + Send + Sync>);

impl Parameter {
    pub fn new<T: Any + Send + Sync>(data: T) -> Self {
        Self(Arc::new(data))
    }

    /// Returns the data if it is a `T`.
    pub fn downcast_ref<T: Any>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }
}

impl fmt::Debug for Parameter {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("Parameter")
    }
}

/// Block of a paged KV cache: the keys and values of [`KV_BLOCK_ROWS`](super::KV_BLOCK_ROWS) consecutive
/// tokens of a sequence in all layers.
#[derive(Clone)]
pub struct KvBlock(Arc<dyn Any + Send + Sync>);

impl KvBlock {
    pub fn new<T: Any + Send + Sync>(data: T) -> Self {
        Self(Arc::new(data))
    }

    /// Returns the data if it is a `T`.
    pub fn downcast_ref<T: Any>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }

    /// Whether another handle shares the data.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// Returns the data for writing if it is a `T`; shared data is cloned first.
    pub fn make_mut<T: Any + Clone + Send + Sync>(&mut self) -> Option<&mut T> {
        if Arc::get_mut(&mut self.0).is_none() {
            self.0 = Arc::new(self.downcast_ref::<T>()?.clone());
        }
        Arc::get_mut(&mut self.0)?.downcast_mut()
    }
}

impl fmt::Debug for KvBlock {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("KvBlock")
    }
}
