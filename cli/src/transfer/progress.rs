//! One bar for everything under way, on a terminal only.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::Output;

const TEMPLATE: &str =
    "{spinner} [{bar:30}] {bytes}/{total_bytes}  {bytes_per_sec}  eta {eta}  {msg}";

/// Bytes and files under way. Cloning shares the bar.
#[derive(Debug, Clone)]
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A bar on standard error, or nothing where nobody looks.
    pub fn new(out: &Output, quiet: bool) -> Self {
        if quiet || !out.is_terminal() || out.is_json() {
            return Self {
                bar: ProgressBar::hidden(),
            };
        }
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(8));
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.enable_steady_tick(Duration::from_millis(250));
        out.set_bar(Some(bar.clone()));
        Self { bar }
    }

    /// More bytes that will travel.
    pub fn found(&self, bytes: u64) {
        self.bar.inc_length(bytes);
    }

    /// Bytes that travelled.
    pub fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    /// Bytes that will travel once more.
    pub fn rewind(&self, bytes: u64) {
        self.bar.dec(bytes);
    }

    /// What is under way.
    pub fn say(&self, text: String) {
        self.bar.set_message(text);
    }

    /// Takes the bar away.
    pub fn finish(&self, out: &Output) {
        out.set_bar(None);
        self.bar.finish_and_clear();
    }
}
