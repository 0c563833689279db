//! Whether the machine has the cores that the settings want, and lets training step back behind serving.

use super::Finding;
use crate::config::{Role, Settings, cores};
use espalier_tensor::pool::{Priority, spawn};

pub fn check(settings: &Settings) -> Vec<Finding> {
    let (serving, training) = (settings.serving.threads, settings.worker.training.threads);
    let detail = format!("{} cores: serving on {serving} threads, training on {training}", cores());
    let threads = match serving.max(training * settings.worker.slots) > 2 * cores() {
        false => Finding::good("threads", detail),
        true => Finding::doubtful(
            "threads",
            detail,
            "more threads than cores only wait for each other: lower --serving-threads, --training-threads or --slots",
        ),
    };
    match settings.role {
        Role::Api => vec![threads],
        Role::All | Role::Worker => vec![threads, priority()],
    }
}

fn priority() -> Finding {
    let subject = "priority";
    let (tell, told) = std::sync::mpsc::channel();
    let started = spawn("doctor", Priority::Lowest, move || {
        let _ = tell.send(niceness());
    });
    let niceness = started.ok().and_then(|_| told.recv().ok()).flatten();
    match niceness {
        Some(19) => Finding::good(subject, "training runs at the lowest priority, behind serving"),
        _ => Finding::doubtful(
            subject,
            "training cannot be put behind serving here: predictions may be slower while a job trains",
            "keep a core for serving with --training-threads, or train in a process of its own with --role",
        ),
    }
}

/// Of the calling thread, as Linux tells it: the 19th field of its `stat`, the 17th behind the name in parentheses.
fn niceness() -> Option<i32> {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(16)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn training_threads_run_behind_all_others() {
        assert_eq!(priority().verdict, Verdict::Good);
        assert_eq!(niceness(), Some(0), "and no other thread is lowered with them");
    }
}
