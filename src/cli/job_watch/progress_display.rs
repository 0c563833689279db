//! Progress of a job: a bar on a terminal, otherwise a line every few seconds.

use crate::cli::api_types::Progress;
use crate::cli::error::CliResult;
use crate::cli::output::{DisplayMode, Output, OutputFormat, format_duration};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::{Duration, Instant};

/// Minimum interval of progress lines.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Display of a job's progress.
pub enum ProgressDisplay {
    Bar(ProgressBar),
    Lines { last_line: Option<(Instant, String)> },
}

impl ProgressDisplay {
    pub fn new(output: &Output) -> Self {
        match output.display_mode() {
            DisplayMode::Plain => Self::Lines { last_line: None },
            DisplayMode::Interactive => {
                let target = match output.format() {
                    OutputFormat::Human => ProgressDrawTarget::stdout(),
                    OutputFormat::Json => ProgressDrawTarget::stderr(),
                };
                Self::Bar(ProgressBar::with_draw_target(None, target).with_style(progress_style(WAITING_TEMPLATE)))
            }
        }
    }

    /// Shows why the job makes no progress.
    pub fn show_waiting(&mut self, reason: &str, output: &mut Output) -> CliResult {
        match self {
            Self::Bar(bar) => {
                bar.set_style(progress_style(WAITING_TEMPLATE));
                bar.set_message(reason.to_string());
                bar.tick();
                Ok(())
            }
            Self::Lines { last_line: last } => match last {
                Some((_, previous)) if previous == reason => Ok(()),
                _ => {
                    *last = Some((Instant::now(), reason.to_string()));
                    output.write_line(reason)
                }
            },
        }
    }

    pub fn show_running(&mut self, progress: &Progress, output: &mut Output) -> CliResult {
        match self {
            Self::Bar(bar) => {
                bar.set_style(progress_style(RUNNING_TEMPLATE));
                bar.set_length(progress.total_steps);
                bar.set_position(progress.step);
                bar.set_message(format_progress(progress));
                bar.tick();
                Ok(())
            }
            Self::Lines { last_line: last } => {
                let text = format!("step {}/{}  {}", progress.step, progress.total_steps, format_progress(progress));
                let is_due = last
                    .as_ref()
                    .is_none_or(|(printed_at, previous)| printed_at.elapsed() >= LINE_INTERVAL && *previous != text);
                let was_waiting = last.as_ref().is_some_and(|(_, previous)| !previous.starts_with("step "));
                if !is_due && !was_waiting {
                    return Ok(());
                }
                *last = Some((Instant::now(), text.clone()));
                output.write_line(text)
            }
        }
    }

    /// Prints a line, above the bar if there is one.
    pub fn print_line(&mut self, text: &str, output: &mut Output) -> CliResult {
        match self {
            Self::Bar(bar) => bar.suspend(|| output.write_line(text)),
            Self::Lines { .. } => output.write_line(text),
        }
    }

    /// Removes the bar.
    pub fn clear(&mut self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

const WAITING_TEMPLATE: &str = "{spinner} {msg}";
const RUNNING_TEMPLATE: &str = "{bar:28} {pos}/{len}  {msg}";

fn progress_style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("WAITING_TEMPLATE and RUNNING_TEMPLATE are valid templates")
}

fn format_progress(progress: &Progress) -> String {
    format!(
        "epoch {:.2}  loss {:.4}  {:.0} examples/s  {} left",
        progress.epoch,
        progress.train_loss,
        progress.examples_per_second,
        format_duration(progress.eta_seconds)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::tests::captured_output;

    fn progress_at(step: u64) -> Progress {
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
    fn plain_lines_are_rate_limited() {
        let (mut output, people, _) = captured_output(OutputFormat::Human);
        let mut display = ProgressDisplay::new(&output);
        display.show_waiting("queued", &mut output).unwrap();
        display.show_waiting("queued", &mut output).unwrap();
        display.show_running(&progress_at(120), &mut output).unwrap();
        display.show_running(&progress_at(121), &mut output).unwrap();
        let line = "step 120/939  epoch 0.38  loss 1.9100  240 examples/s  1m49s left";
        assert_eq!(people.text(), format!("queued\n{line}\n"));
    }
}
