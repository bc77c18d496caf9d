//! Where a command writes: results on standard output, everything else on standard error, and the
//! progress bar in between only where a person looks.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use indicatif::ProgressBar;
use serde::Serialize;

use crate::args::OutputFormat;
use crate::exit::{Exit, Failure};

/// A writer that threads share.
pub type SharedWriter = Arc<Mutex<dyn Write + Send>>;

/// Standard output and error of one command. Cloning shares them.
#[derive(Clone)]
pub struct Output {
    stdout: SharedWriter,
    stderr: SharedWriter,
    /// Whether standard error is a terminal: progress bars are drawn there only.
    terminal: bool,
    format: OutputFormat,
    bar: Arc<Mutex<Option<ProgressBar>>>,
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Output")
            .field("terminal", &self.terminal)
            .field("format", &self.format)
            .finish_non_exhaustive()
    }
}

impl Output {
    /// Writes to the process's own streams.
    pub fn process(terminal: bool) -> Self {
        Self::new(
            Arc::new(Mutex::new(io::stdout())),
            Arc::new(Mutex::new(io::stderr())),
            terminal,
        )
    }

    /// Writes to these.
    pub fn new(stdout: SharedWriter, stderr: SharedWriter, terminal: bool) -> Self {
        Self {
            stdout,
            stderr,
            terminal,
            format: OutputFormat::Text,
            bar: Arc::default(),
        }
    }

    /// The same streams in that format.
    #[must_use]
    pub fn with_format(mut self, format: OutputFormat) -> Self {
        self.format = format;
        self
    }

    /// Whether results are JSON.
    pub fn is_json(&self) -> bool {
        self.format == OutputFormat::Json
    }

    /// Whether a person watches standard error.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// The bar that messages must not tear; none takes it away.
    pub fn set_bar(&self, bar: Option<ProgressBar>) {
        *lock(&self.bar) = bar;
    }

    /// One line, or several, of the result.
    pub fn line(&self, text: &str) -> Result<(), Failure> {
        let bar = lock(&self.bar).clone();
        let write = || {
            let mut stdout = lock(&self.stdout);
            writeln!(stdout, "{text}").and_then(|()| stdout.flush())
        };
        let written = match bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        };
        written.map_err(|error| stdout_failure(&error))
    }

    /// One JSON document on one line.
    pub fn json(&self, document: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(document)
            .map_err(|error| Failure::new(Exit::Failed, "write JSON", error.to_string()))?;
        self.line(&text)
    }

    /// The bytes' way to standard output: blocks, use it on a blocking thread.
    pub fn stdout(&self) -> SharedWriter {
        self.stdout.clone()
    }

    /// A failure, for people. A reader of standard output that left is none.
    pub fn failure(&self, failure: &Failure) {
        self.note(&failure.render());
    }

    /// Something that people should know and that is no failure.
    pub fn warn(&self, text: &str) {
        self.note(&format!("warning: {text}"));
    }

    /// A line on standard error.
    pub fn note(&self, text: &str) {
        let bar = lock(&self.bar).clone();
        // Nobody is left to tell when standard error cannot be written.
        let write = || drop(writeln!(lock(&self.stderr), "{text}"));
        match bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }
}

/// What a failed write to standard output means. A reader that left (`| head`) wants no more: the
/// command ends in silence, see [`is_closed_output`].
pub fn stdout_failure(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Failure::new(Exit::Done, CLOSED, "the reader is gone");
    }
    Failure::local("write to standard output", error)
}

/// Whether this only says that nobody reads standard output any more.
pub fn is_closed_output(failure: &Failure) -> bool {
    failure.exit == Exit::Done && failure.what == CLOSED
}

const CLOSED: &str = "standard output";

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
