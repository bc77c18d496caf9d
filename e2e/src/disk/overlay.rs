//! The bytes of one file: what is on the platter, and the un-synced pages that cover it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Un-synced bytes are kept in pages of this many bytes.
pub(super) const PAGE: u64 = 4096;
const PAGE_BYTES: usize = 4096;
/// Neighbouring pages are pushed in one write of at most this many bytes.
const PUSH_BYTES: usize = 1024 * 1024;
/// A torn page keeps a whole number of these.
const SECTOR: usize = 512;

#[derive(Debug)]
struct Page {
    bytes: Box<[u8]>,
    /// A failed sync took it off the list of pages to write, as Linux does: it is read, never pushed.
    lost: bool,
}

/// A file as a machine with a page cache sees it. The real file is what a power cut leaves.
#[derive(Debug)]
pub(super) struct Overlay {
    real: File,
    /// Bytes of the file as its readers see it.
    length: u64,
    /// Bytes of the real file.
    real_length: u64,
    /// Real bytes from here on were cut away: they read as zeroes until pages cover them.
    valid_real: u64,
    pages: BTreeMap<u64, Page>,
}

impl Overlay {
    pub(super) fn new(real: File) -> io::Result<Self> {
        let length = real.metadata()?.len();
        Ok(Self {
            real,
            length,
            real_length: length,
            valid_real: length,
            pages: BTreeMap::new(),
        })
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Whether a power cut would change what readers see.
    pub(super) fn is_dirty(&self) -> bool {
        !self.pages.is_empty()
            || self.length != self.real_length
            || self.valid_real != self.real_length
    }

    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let room = self.length.saturating_sub(offset);
        let wanted = buffer
            .len()
            .min(usize::try_from(room).unwrap_or(usize::MAX));
        let buffer = &mut buffer[..wanted];
        let end = offset + wanted as u64;
        let mut at = offset;
        while at < end {
            let number = at / PAGE;
            let from = slot(at - offset);
            if let Some(page) = self.pages.get(&number) {
                let until = end.min((number + 1) * PAGE);
                let within = slot(at % PAGE);
                let count = slot(until - at);
                buffer[from..from + count].copy_from_slice(&page.bytes[within..within + count]);
                at = until;
            } else {
                let next = self.pages.range(number..).next();
                let until = next.map_or(end, |(next, _)| end.min(next * PAGE));
                self.read_real(&mut buffer[from..from + slot(until - at)], at)?;
                at = until;
            }
        }
        Ok(wanted)
    }

    /// Real bytes, zeroes where they were cut away or never were.
    fn read_real(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let room = self.valid_real.saturating_sub(offset);
        let real = buffer
            .len()
            .min(usize::try_from(room).unwrap_or(usize::MAX));
        self.real.read_exact_at(&mut buffer[..real], offset)?;
        buffer[real..].fill(0);
        Ok(())
    }

    pub(super) fn write(&mut self, data: &[u8], offset: u64) -> io::Result<()> {
        let end = offset + data.len() as u64;
        let mut at = offset;
        while at < end {
            let number = at / PAGE;
            let until = end.min((number + 1) * PAGE);
            let chunk = &data[slot(at - offset)..slot(until - offset)];
            if chunk.len() == PAGE_BYTES {
                let page = Page {
                    bytes: chunk.into(),
                    lost: false,
                };
                self.pages.insert(number, page);
            } else {
                let within = slot(at % PAGE);
                let page = self.load(number)?;
                page.bytes[within..within + chunk.len()].copy_from_slice(chunk);
                page.lost = false;
            }
            at = until;
        }
        self.length = self.length.max(end);
        Ok(())
    }

    fn load(&mut self, number: u64) -> io::Result<&mut Page> {
        if !self.pages.contains_key(&number) {
            let mut bytes = vec![0; PAGE_BYTES].into_boxed_slice();
            self.read_real(&mut bytes, number * PAGE)?;
            self.pages.insert(number, Page { bytes, lost: false });
        }
        self.pages
            .get_mut(&number)
            .ok_or_else(|| io::Error::other("the page is gone"))
    }

    pub(super) fn set_length(&mut self, length: u64) {
        if length < self.length {
            self.valid_real = self.valid_real.min(length);
            self.pages.split_off(&length.div_ceil(PAGE));
            if let Some(page) = self.pages.get_mut(&(length / PAGE)) {
                page.bytes[slot(length % PAGE)..].fill(0);
            }
        }
        self.length = length;
    }

    /// Pushes everything to the real file: it survives the power cut from here on.
    pub(super) fn push(&mut self) -> io::Result<()> {
        self.push_lengths()?;
        let mut run = Vec::new();
        let mut start = 0;
        for (number, page) in &self.pages {
            let at = number * PAGE;
            let follows = at == start + run.len() as u64 && run.len() < PUSH_BYTES;
            if !follows || page.lost {
                self.real.write_all_at(&run, start)?;
                run.clear();
                start = at;
            }
            if !page.lost {
                let count = PAGE.min(self.length.saturating_sub(at));
                run.extend_from_slice(&page.bytes[..slot(count)]);
            }
        }
        self.real.write_all_at(&run, start)?;
        self.pages.retain(|_, page| page.lost);
        Ok(())
    }

    fn push_lengths(&mut self) -> io::Result<()> {
        if self.valid_real < self.real_length {
            self.real.set_len(self.valid_real)?;
            self.real_length = self.valid_real;
        }
        if self.real_length != self.length {
            self.real.set_len(self.length)?;
            self.real_length = self.length;
        }
        self.valid_real = self.real_length;
        Ok(())
    }

    /// A sync failed: what it should have pushed will never be, though it is still read.
    pub(super) fn lose(&mut self) {
        for page in self.pages.values_mut() {
            page.lost = true;
        }
    }

    /// The power goes while the disk writes: any subset of pages and lengths gets there, some torn.
    pub(super) fn push_some(&mut self, rng: &mut fastrand::Rng) -> io::Result<()> {
        if self.valid_real < self.real_length && rng.bool() {
            self.real.set_len(self.valid_real)?;
            self.real_length = self.valid_real;
        }
        // All, none or a mixture: the extremes are likely, and find other bugs than the mixture.
        let share = [0.0, 0.5, 1.0][rng.usize(..3)];
        for (number, page) in &self.pages {
            if page.lost || rng.f64() >= share {
                continue;
            }
            let at = number * PAGE;
            let mut count = slot(PAGE.min(self.length.saturating_sub(at)));
            if rng.u8(..4) == 0 {
                count = count.min(rng.usize(..=PAGE_BYTES / SECTOR) * SECTOR);
            }
            self.real.write_all_at(&page.bytes[..count], at)?;
        }
        let reached = self.real.metadata()?.len();
        if self.length > reached && rng.bool() {
            self.real.set_len(self.length)?;
        }
        Ok(())
    }
}

/// Offsets within one call fit the memory that the call's buffer already fills.
fn slot(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}
