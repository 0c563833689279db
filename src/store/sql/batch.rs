//! Deletion in batches: transactions of a limited number of rows, with pauses between them for other writers.

use super::connection::{SqlStore, Transaction};
use super::dialect::Dialect;
use espalier_core::error::Result;
use std::time::{Duration, Instant};

/// Rows deleted in one transaction.
pub const ROWS_PER_TRANSACTION: u64 = 1000;

/// Shortest pause after a transaction. SQLite lets waiting writers of other processes try every few milliseconds.
const MIN_PAUSE: Duration = Duration::from_millis(5);

/// Deletes rows in transactions of at most [`ROWS_PER_TRANSACTION`] rows. Dropping it undoes the last transaction.
pub struct BatchedDeletion<'a, D: Dialect> {
    store: &'a SqlStore<D>,
    open: Option<OpenTransaction<D>>,
}

struct OpenTransaction<D: Dialect> {
    transaction: Transaction<D>,
    began_at: Instant,
    rows: u64,
}

impl<'a, D: Dialect> BatchedDeletion<'a, D> {
    pub fn new(store: &'a SqlStore<D>) -> Self {
        Self { store, open: None }
    }

    /// The open transaction, or a new one.
    pub async fn transaction(&mut self) -> Result<&mut Transaction<D>> {
        let open = match self.open.take() {
            Some(open) => open,
            None => {
                let transaction = self.store.begin().await?;
                OpenTransaction { transaction, began_at: Instant::now(), rows: 0 }
            }
        };
        Ok(&mut self.open.insert(open).transaction)
    }

    /// Number of rows that the open transaction may still delete; at least 1.
    pub fn remaining(&self) -> u64 {
        ROWS_PER_TRANSACTION - self.open.as_ref().map_or(0, |open| open.rows)
    }

    /// Counts deleted rows. Commits when the transaction has deleted its share.
    pub async fn count(&mut self, rows: u64) -> Result<()> {
        if let Some(open) = &mut self.open {
            open.rows += rows;
        }
        if self.open.as_ref().is_some_and(|open| open.rows >= ROWS_PER_TRANSACTION) {
            self.commit().await?;
        }
        Ok(())
    }

    /// Commits what has been deleted, and waits as long as that took.
    pub async fn commit(&mut self) -> Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        open.transaction.commit().await?;
        tokio::time::sleep(open.began_at.elapsed().max(MIN_PAUSE)).await;
        Ok(())
    }

    /// Undoes what the open transaction has deleted.
    pub async fn rollback(&mut self) -> Result<()> {
        match self.open.take() {
            Some(open) => open.transaction.rollback().await,
            None => Ok(()),
        }
    }
}
