//! Whether the machine has the cores that the settings want, and lets training step back behind serving.

use super::CheckResult;
use crate::config::{Role, Settings, available_cores};
use espalier_tensor::worker_pool::{Priority, spawn_compute_thread};

pub fn check(settings: &Settings) -> Vec<CheckResult> {
    let (serving, training) = (settings.serving.threads, settings.worker.training.threads);
    let detail = format!("{} cores: serving on {serving} threads, training on {training}", available_cores());
    let threads = match serving.max(training * settings.worker.slots) > 2 * available_cores() {
        false => CheckResult::pass("threads", detail),
        true => CheckResult::warn(
            "threads",
            detail,
            "more threads than cores only wait for each other: lower --serving-threads, --training-threads or --slots",
        ),
    };
    match settings.role {
        Role::Api => vec![threads],
        Role::All | Role::Worker => vec![threads, check_priority()],
    }
}

fn check_priority() -> CheckResult {
    let subject = "priority";
    let (sender, receiver) = std::sync::mpsc::channel();
    let started = spawn_compute_thread("doctor", Priority::Background, move || {
        let _ = sender.send(thread_niceness());
    });
    let niceness = started.ok().and_then(|_| receiver.recv().ok()).flatten();
    match niceness {
        Some(19) => CheckResult::pass(subject, "training runs at the lowest priority, behind serving"),
        _ => CheckResult::warn(
            subject,
            "training cannot be put behind serving here: predictions may be slower while a job trains",
            "keep a core for serving with --training-threads, or train in a process of its own with --role",
        ),
    }
}

/// Of the calling thread, as Linux tells it: the 19th field of its `stat`, the 17th behind the name in parentheses.
fn thread_niceness() -> Option<i32> {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(16)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::CheckStatus;
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn training_threads_have_the_lowest_priority() {
        assert_eq!(check_priority().status, CheckStatus::Pass);
        assert_eq!(thread_niceness(), Some(0), "and no other thread is lowered with them");
    }
}
