//! A client's own, fsynced memory of what it asked for and what was acknowledged. After any
//! fault the store is held against it: what was acked is there and whole (I1, I2, I12), what was not is
//! wholly visible or wholly absent (I3), what was deleted stays deleted (I9).

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::future::Future;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::disk::lock;

/// What a path holds: a digest and a size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// SHA-256, in hex.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
}

impl Content {
    /// Of bytes at hand.
    pub fn of(bytes: &[u8]) -> Self {
        Self {
            sha256: sha256_hex(bytes),
            size: bytes.len() as u64,
        }
    }
}

/// SHA-256 in lower-case hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        // Writing to a string cannot fail.
        let _written = write!(hex, "{byte:02x}");
    }
    hex
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    path: String,
    /// What the path holds when the request takes effect; `None` for a delete.
    effect: Option<Content>,
    acked: bool,
}

/// See the module's words. One path has one writer at a time; paths may be written in parallel.
#[derive(Debug)]
pub struct Ledger {
    file: Mutex<File>,
}

/// What the ledger says a path may hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed {
    /// The last effect that was acknowledged, if any was.
    pub acked: Option<Option<Content>>,
    /// Effects asked for since, and not acknowledged: any of them may have happened.
    pub open: Vec<Option<Content>>,
}

impl Allowed {
    /// Whether the path may hold this (`None`: be absent).
    pub fn permits(&self, found: Option<&Content>) -> bool {
        let before = self.acked.clone().flatten();
        before.as_ref() == found || self.open.iter().any(|effect| effect.as_ref() == found)
    }
}

/// How a store compares with a ledger.
#[derive(Debug, Clone, Default)]
pub struct Comparison {
    /// Paths with an acknowledged request.
    pub acked: usize,
    /// Paths with a request in flight that turned out to have happened.
    pub open_visible: usize,
    /// Paths with a request in flight that did not happen.
    pub open_absent: usize,
    /// What breaks a promise, in words.
    pub broken: Vec<String>,
}

impl Ledger {
    /// Appends to a ledger, new or not.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self {
            file: Mutex::new(file),
        })
    }

    /// Notes a request before it is sent: a write, or a delete when `effect` is `None`.
    pub fn ask(&self, path: &str, effect: Option<&Content>) -> io::Result<()> {
        self.append(path, effect, false)
    }

    /// Notes an acknowledgement, durably, before anyone relies on it.
    pub fn ack(&self, path: &str, effect: Option<&Content>) -> io::Result<()> {
        self.append(path, effect, true)
    }

    fn append(&self, path: &str, effect: Option<&Content>, acked: bool) -> io::Result<()> {
        let entry = Entry {
            path: path.to_owned(),
            effect: effect.cloned(),
            acked,
        };
        let mut line = serde_json::to_vec(&entry).map_err(io::Error::other)?;
        line.push(b'\n');
        let mut file = lock(&self.file);
        file.write_all(&line)?;
        if acked {
            file.sync_data()?;
        }
        Ok(())
    }

    /// What each path may hold. A torn last line was never relied on, and is skipped.
    pub fn load(path: &Path) -> io::Result<BTreeMap<String, Allowed>> {
        let mut allowed: BTreeMap<String, Allowed> = BTreeMap::new();
        let mut lines = BufReader::new(File::open(path)?).split(b'\n').peekable();
        while let Some(line) = lines.next() {
            let entry: Entry = match serde_json::from_slice(&line?) {
                Ok(entry) => entry,
                Err(_) if lines.peek().is_none() => break,
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            };
            let state = allowed.entry(entry.path).or_default();
            if entry.acked {
                state.acked = Some(entry.effect);
                state.open.clear();
            } else {
                state.open.push(entry.effect);
            }
        }
        Ok(allowed)
    }
}

/// Asks the store for every path of a ledger. `fetch` answers what a path holds, `None` when the store says
/// that it is absent, and an error in words when the store cannot say.
pub async fn compare<F>(
    ledger: &BTreeMap<String, Allowed>,
    mut fetch: impl FnMut(String) -> F,
) -> Comparison
where
    F: Future<Output = Result<Option<Content>, String>>,
{
    let mut comparison = Comparison::default();
    for (path, allowed) in ledger {
        comparison.acked += usize::from(allowed.acked.is_some());
        let found = match fetch(path.clone()).await {
            Ok(found) => found,
            Err(reason) => {
                comparison.broken.push(format!("{path}: {reason}"));
                continue;
            }
        };
        if !allowed.permits(found.as_ref()) {
            comparison
                .broken
                .push(format!("{path}: found {found:?}, allowed {allowed:?}"));
        } else if !allowed.open.is_empty() {
            let before = allowed.acked.clone().flatten();
            let happened = before != found;
            comparison.open_visible += usize::from(happened);
            comparison.open_absent += usize::from(!happened);
        }
    }
    comparison
}
