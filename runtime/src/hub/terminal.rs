//! A download's progress bar on a terminal.

use indicatif::{ProgressBar, ProgressStyle};

use super::Progress;

/// One bar per file on stderr; nothing where stderr is not a terminal.
#[derive(Debug, Default)]
pub struct TerminalProgress {
    bar: Option<ProgressBar>,
}

impl Progress for TerminalProgress {
    fn start(&mut self, file: &str, size: u64, done: u64) {
        let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
        let bar = self.bar.take().unwrap_or_else(|| ProgressBar::new(size));
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(file.to_owned());
        bar.set_length(size);
        // What is there already must not count as speed.
        bar.set_position(done);
        bar.reset_eta();
        self.bar = Some(bar);
    }

    fn advance(&mut self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
        }
    }

    fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish();
        }
    }
}
