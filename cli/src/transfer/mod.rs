//! Files on their way: uploads, downloads, several at once, with progress. Local files are the
//! user's own, not the product's data: they are read and written with the standard library, on
//! blocking threads.

mod download;
mod many;
mod progress;
mod sink;
mod source;
mod upload;
mod walk;

pub use download::{Downloaded, download};
pub use many::{Tally, run_all};
pub use progress::Progress;
pub use sink::Target;
pub use source::Source;
pub use upload::{UploadOptions, upload};
pub use walk::{Found, WalkProblem, walk};

use dfs_protocol::checksum::{crc64nvme, crc64nvme_combine};

/// A CRC64-NVME that grows as bytes pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct RunningCrc64 {
    value: u64,
    length: u64,
}

impl RunningCrc64 {
    fn push(&mut self, data: &[u8]) {
        let (part, length) = (crc64nvme(data), data.len() as u64);
        self.value = if self.length == 0 {
            part
        } else {
            crc64nvme_combine(self.value, part, length)
        };
        self.length += length;
    }

    fn value(self) -> u64 {
        if self.length == 0 {
            crc64nvme(&[])
        } else {
            self.value
        }
    }
}
