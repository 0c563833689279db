//! Between the training thread, which must not wait, and the attempt, which talks to the database.
//!
//! The thread leaves what it has to say and hears at once whether to stop; the attempt fetches it when it can.

use super::orders::Orders;
use espalier_core::training::{Progress, Row, Stop};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

pub struct Speech {
    orders: Arc<Orders>,
    said: Mutex<Said>,
    news: Notify,
}

#[derive(Default)]
struct Said {
    progress: Option<Progress>,
    news: News,
}

/// What the database is to learn soon.
#[derive(Debug, Default, PartialEq)]
pub struct News {
    /// Rows not yet fetched, in order.
    pub rows: Vec<Row>,
    /// The step of the newest checkpoint, where there is a new one.
    pub checkpoint: Option<u64>,
}

impl Speech {
    pub fn new(orders: Arc<Orders>) -> Self {
        Self { orders, said: Mutex::default(), news: Notify::new() }
    }

    /// The training thread's side.
    pub fn report(&self, progress: &Progress) -> ControlFlow<Stop> {
        let has_news = progress.checkpointed || !progress.rows.is_empty();
        let mut said = self.lock();
        said.news.rows.extend(progress.rows.iter().cloned());
        if progress.checkpointed {
            said.news.checkpoint = Some(progress.step);
        }
        // Before the first step there is nothing to tell, and an earlier attempt's word may stand.
        if progress.total_steps > 0 {
            said.progress = Some(Progress { rows: Vec::new(), checkpointed: false, ..progress.clone() });
        }
        drop(said);
        if has_news {
            self.news.notify_one();
        }
        match self.orders.stop() {
            Some(stop) => ControlFlow::Break(stop),
            None => ControlFlow::Continue(()),
        }
    }

    /// Where the run is.
    pub fn progress(&self) -> Option<Progress> {
        self.lock().progress.clone()
    }

    /// Returns when there is news.
    pub async fn heard(&self) {
        self.news.notified().await;
    }

    /// What was said since the last time.
    pub fn fetch(&self) -> News {
        std::mem::take(&mut self.lock().news)
    }

    fn lock(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Wish;
    use serde_json::json;
    use std::time::Duration;
    use tokio::time::Instant;
    use tokio_util::sync::CancellationToken;

    fn speech() -> (Speech, Arc<Orders>) {
        let until = Instant::now() + Duration::from_secs(3600);
        let orders = Arc::new(Orders::new(CancellationToken::new(), until));
        (Speech::new(Arc::clone(&orders)), orders)
    }

    fn progress(step: u64) -> Progress {
        Progress {
            step,
            total_steps: 10,
            epoch: 0.5,
            train_loss: 1.0,
            examples_per_second: 100.0,
            eta_seconds: 1.0,
            rows: Vec::new(),
            checkpointed: false,
        }
    }

    fn row(step: u64) -> Row {
        Row { step, split: "train".to_string(), metrics: json!({"loss": 1.0}) }
    }

    #[test]
    fn rows_are_fetched_once_and_in_order_however_many_reports_they_came_in() {
        let (speech, _orders) = speech();
        for step in [1, 2] {
            let said = Progress { rows: vec![row(step)], checkpointed: step == 1, ..progress(step) };
            assert!(speech.report(&said).is_continue());
        }
        assert_eq!(speech.fetch(), News { rows: vec![row(1), row(2)], checkpoint: Some(1) });
        assert_eq!(speech.fetch(), News::default());
        assert_eq!(speech.progress(), Some(progress(2)), "the progress carries no rows");
    }

    #[test]
    fn a_run_that_has_not_begun_says_nothing_of_its_progress() {
        let (speech, _orders) = speech();
        let _ = speech.report(&Progress { total_steps: 0, ..progress(0) });
        assert_eq!(speech.progress(), None);
    }

    #[test]
    fn the_training_thread_hears_at_its_next_word() {
        let (speech, orders) = speech();
        assert!(speech.report(&progress(1)).is_continue());
        orders.wish(Some(Wish::Cancel));
        assert_eq!(speech.report(&progress(2)), ControlFlow::Break(Stop::Cancel));
    }

    #[tokio::test]
    async fn news_that_came_before_anybody_listened_is_heard() {
        let (speech, _orders) = speech();
        let _ = speech.report(&Progress { checkpointed: true, ..progress(3) });
        speech.heard().await;
        assert_eq!(speech.fetch().checkpoint, Some(3));
    }
}
