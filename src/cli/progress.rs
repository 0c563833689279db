//! How a job's progress is shown: a bar that is drawn anew in place, or a plain line every few seconds.
//!
//! Knows nothing of where the progress comes from.

use super::failure::Outcome;
use super::output::{Form, Live, Output, span};
use super::views::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::{Duration, Instant};

/// Between two plain lines.
const EVERY: Duration = Duration::from_secs(5);

pub enum Display {
    Bar(ProgressBar),
    Lines { last: Option<(Instant, String)> },
}

impl Display {
    pub fn new(output: &Output) -> Self {
        match output.live() {
            Live::Plain => Self::Lines { last: None },
            Live::Terminal => {
                let target = match output.form() {
                    Form::People => ProgressDrawTarget::stdout(),
                    Form::Json => ProgressDrawTarget::stderr(),
                };
                Self::Bar(ProgressBar::with_draw_target(None, target).with_style(style(WAITING)))
            }
        }
    }

    /// The job waits, for the reason given.
    pub fn waiting(&mut self, why: &str, output: &mut Output) -> Outcome {
        match self {
            Self::Bar(bar) => {
                bar.set_style(style(WAITING));
                bar.set_message(why.to_string());
                bar.tick();
                Ok(())
            }
            Self::Lines { last } => match last {
                Some((_, said)) if said == why => Ok(()),
                _ => {
                    *last = Some((Instant::now(), why.to_string()));
                    output.line(why)
                }
            },
        }
    }

    pub fn running(&mut self, progress: &Progress, output: &mut Output) -> Outcome {
        match self {
            Self::Bar(bar) => {
                bar.set_style(style(RUNNING));
                bar.set_length(progress.total_steps);
                bar.set_position(progress.step);
                bar.set_message(figures(progress));
                bar.tick();
                Ok(())
            }
            Self::Lines { last } => {
                let text = format!("step {}/{}  {}", progress.step, progress.total_steps, figures(progress));
                let due = last.as_ref().is_none_or(|(when, said)| when.elapsed() >= EVERY && *said != text);
                let waited = last.as_ref().is_some_and(|(_, said)| !said.starts_with("step "));
                if !due && !waited {
                    return Ok(());
                }
                *last = Some((Instant::now(), text.clone()));
                output.line(text)
            }
        }
    }

    /// A line that stays, above the bar where there is one.
    pub fn line(&mut self, text: &str, output: &mut Output) -> Outcome {
        match self {
            Self::Bar(bar) => bar.suspend(|| output.line(text)),
            Self::Lines { .. } => output.line(text),
        }
    }

    /// Leaves the terminal as it was found.
    pub fn clear(&mut self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

const WAITING: &str = "{spinner} {msg}";
const RUNNING: &str = "{bar:28} {pos}/{len}  {msg}";

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("both templates above are well formed")
}

fn figures(progress: &Progress) -> String {
    format!(
        "epoch {:.2}  loss {:.4}  {:.0} examples/s  {} left",
        progress.epoch,
        progress.train_loss,
        progress.examples_per_second,
        span(progress.eta_seconds)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::tests::kept;

    fn at(step: u64) -> Progress {
        Progress {
            step,
            total_steps: 939,
            epoch: 0.38,
            train_loss: 1.91,
            examples_per_second: 240.1,
            eta_seconds: 109.0,
        }
    }

    #[test]
    fn plain_lines_come_every_few_seconds_only() {
        let (mut output, people, _) = kept(Form::People);
        let mut display = Display::new(&output);
        display.waiting("queued", &mut output).unwrap();
        display.waiting("queued", &mut output).unwrap();
        display.running(&at(120), &mut output).unwrap();
        display.running(&at(121), &mut output).unwrap();
        let line = "step 120/939  epoch 0.38  loss 1.9100  240 examples/s  1m49s left";
        assert_eq!(people.text(), format!("queued\n{line}\n"));
    }
}
