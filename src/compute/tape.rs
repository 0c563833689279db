//! Skeleton.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Param(usize);
impl Param {
    pub fn new(index: usize) -> Self {
        Self(index)
    }
    pub fn index(self) -> usize {
        self.0
    }
}
#[derive(Debug, Clone, Copy)]
pub struct Rows;
pub enum Recording {}
pub struct Tape;
