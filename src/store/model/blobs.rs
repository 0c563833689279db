//! Kinds of blobs that rows refer to by the hash of their content.

/// Kind of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BlobKind {
    Dataset,
    Adapter,
}

impl BlobKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dataset => "dataset",
            Self::Adapter => "adapter",
        }
    }
}
